"""`reply_ignored`: an answer arrives, but the resolver must refuse it: wrong id, question or sender.

Owns: what must have been seen, and the words for it. Must not know: other causes.

A reply from an address that was not asked never reaches a connected socket: the kernel drops it, visibly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import no_reply
from ebpfdns.diagnose.wording import dig, listing, server_text, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Lookup, Server


def rule(case: LookupCase) -> Cause | None:
    """Something came to this lookup that fits none of its questions, and a question waits."""
    lookup = case.lookup
    silent = case.silent
    if not lookup.unexpected_replies or not silent:
        return None
    servers = [server for server in case.servers if any(query.server == server for query in silent)]
    # With the id and the port of a question of this lookup it is meant for it. With another id only the
    # socket ties it to the lookup: glibc has one for each server and lookup.
    is_meant_for_it = bool(lookup.wrong_questions or lookup.wrong_senders)
    is_own_socket = case.hears_errors and case.situation.resolver == "glibc"
    waited_long = any(case.waited_ns(query) >= A_SECOND_NS for query in silent)
    return Cause(
        "reply_ignored",
        "confirmed" if (is_meant_for_it or is_own_socket) and waited_long else "likely",
        f"Replies come, but {_what_is_wrong(lookup)}, and the resolver must refuse them: "
        f"{listing(map(server_text, servers))} counts as silent.",
        (_mismatch(lookup), *(no_reply(case, server) for server in servers)),
        _remedy(case, servers[0]),
    )


def _what_is_wrong(lookup: Lookup) -> str:
    sender = f"from {lookup.stray_sender}, which was not asked"
    wrong = [
        "with the wrong id" if lookup.wrong_ids else "",
        "to another question" if lookup.wrong_questions else "",
        (sender if lookup.stray_sender else "from an address that was not asked")
        if lookup.wrong_senders
        else "",
    ]
    return listing(filter(None, wrong)) or "none that fits"


def _mismatch(lookup: Lookup) -> Evidence:
    count = lookup.unexpected_replies
    numbers: Numbers = {
        "replies": count,
        "wrong_id": lookup.wrong_ids,
        "wrong_question": lookup.wrong_questions,
        "wrong_sender": lookup.wrong_senders,
    }
    if lookup.stray_sender:
        numbers["sender"] = lookup.stray_sender
    text = f"a reply that fits no question came {times(count)}: {_what_is_wrong(lookup)}"
    return Evidence("reply_mismatch", text, numbers)


def _remedy(case: LookupCase, server: Server) -> str:
    test = f"try: {dig(server, case.lookup)}"
    if case.lookup.wrong_senders:
        return (
            "Let the server answer from the address that was asked "
            f"(a NAT rule, or dnsmasq --bind-interfaces); {test}"
        )
    return f"Look for a proxy or middlebox that rewrites DNS on the way to {server_text(server)}; {test}"
