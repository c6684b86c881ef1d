"""`first_ns_dead`: the first server is dead; the lookup only works because a later one answers.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import no_reply, reply_seen
from ebpfdns.diagnose.wording import dig, listing, milliseconds, seconds, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Server


def rule(case: LookupCase) -> Cause | None:
    """The first server answered nothing, and one asked later has answered, or was just asked."""
    silent = {query for query in case.silent if case.waited_ns(query) >= A_SECOND_NS}
    asked = case.servers
    dead = _leading(case, [server for server in asked if set(case.queries_to(server)) <= silent])
    if not dead or len(dead) == len(asked) or case.has_stray_reply:
        return None
    next_one = asked[len(dead)]
    paid_ns = case.first_sent_ns(next_one) - case.first_sent_ns(dead[0])
    if paid_ns < WORTH_SAYING_NS:  # asked at the same time: nobody waited for the first
        return None
    answered = [query for query in case.answered if query.server == next_one]
    if answered:
        is_sure = case.hears_errors and paid_ns >= A_SECOND_NS
        last = reply_seen(case, min(answered, key=lambda query: query.reply_ns or 0))
        state = f"only {server_text(next_one)}, asked {seconds(paid_ns)} later, answers"
    else:
        if case.at_ns - case.first_sent_ns(next_one) >= A_SECOND_NS:
            return None  # that one is silent too
        is_sure = False
        last = _just_asked(case, next_one, paid_ns)
        state = f"{server_text(next_one)} has just been asked instead"
    named = listing(map(server_text, dead))
    return Cause(
        "first_ns_dead",
        "confirmed" if is_sure else "likely",
        f"The DNS server that is asked first, {named}, is silent; {state}."
        if len(dead) == 1
        else f"The DNS servers that are asked first, {named}, are silent; {state}.",
        (*(no_reply(case, server) for server in dead), last),
        f"Remove or move down the nameserver line of {named} in /etc/resolv.conf, or add: "
        f"options timeout:1 attempts:2 rotate. Try: {dig(dead[0], case.lookup)}",
    )


def _leading(case: LookupCase, silent: list[Server]) -> list[Server]:
    """Those of the silent servers that were asked before any that is not."""
    leading = []
    for server in case.servers:
        if server not in silent:
            break
        leading.append(server)
    return leading


def _just_asked(case: LookupCase, server: Server, paid_ns: int) -> Evidence:
    waited_ns = case.at_ns - case.first_sent_ns(server)
    numbers: Numbers = {
        "server": server.address,
        "asked_after_ms": milliseconds(paid_ns),
        "waited_ms": milliseconds(waited_ns),
    }
    text = f"{server_text(server)} was asked {seconds(paid_ns)} later, {seconds(waited_ns)} ago"
    return Evidence("query_sent", text, numbers)
