"""`reply_ignored`: an answer arrives, but the resolver must refuse it: wrong id or sender.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import no_reply
from ebpfdns.diagnose.wording import dig, listing, server_text, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """Something came to a socket of this lookup that fits none of its questions, and a question waits."""
    count = case.lookup.unexpected_replies
    silent = case.silent
    if not count or not silent:
        return None
    servers = [server for server in case.servers if any(query.server == server for query in silent)]
    mismatch = Evidence(
        "reply_mismatch",
        f"a reply that fits no question came {times(count)}: another id, or another sender",
        {"replies": count},
    )
    # glibc opens a socket for each server and lookup: what comes there cannot belong to an earlier question.
    is_own_socket = case.hears_errors and case.situation.resolver == "glibc"
    waited_long = any(case.waited_ns(query) >= A_SECOND_NS for query in silent)
    return Cause(
        "reply_ignored",
        "confirmed" if is_own_socket and waited_long else "likely",
        f"Replies come, but with the wrong id or sender, and the resolver must refuse them: "
        f"{listing(map(server_text, servers))} counts as silent.",
        (mismatch, *(no_reply(case, server) for server in servers)),
        f"Let the server answer from the address that was asked (a NAT rule, or dnsmasq --bind-interfaces); "
        f"try: {dig(servers[0], case.lookup)}",
    )
