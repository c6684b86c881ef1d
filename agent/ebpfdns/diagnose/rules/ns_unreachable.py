"""`ns_unreachable`: there is no route to the DNS server, or a router says so.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import errors
from ebpfdns.diagnose.wording import listing, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Query, Server

#: No route: ENETUNREACH, EHOSTUNREACH; a route that says no: EACCES (prohibit), EINVAL (blackhole).
AT_SEND = (101, 113, 13, 22)
#: What a router, or the search for a neighbour, tells later.
AFTERWARDS = (101, 113)


def rule(case: LookupCase) -> Cause | None:
    """An error said so, or the packet of a send never left; and no other server is being waited for."""
    if case.silent or (case.is_open and case.answered):
        return None
    told = case.failed_with(*AT_SEND, sent=False) + case.failed_with(*AFTERWARDS, sent=True)
    if told:
        return _told(case, told)
    return _never_left(case)


def _told(case: LookupCase, told: tuple[Query, ...]) -> Cause:
    """The number of the error is known."""
    servers = list(dict.fromkeys(query.server for query in told))
    others_wait = any(map(case.is_open_question, case.sent))
    explains_all = not others_wait and not case.answered
    return Cause(
        "ns_unreachable",
        "confirmed" if explains_all else "likely",
        f"There is no route to the DNS server {listing(map(server_text, servers))}.",
        tuple(errors(case.lookup.queries)),
        _remedy(servers[0]),
    )


def _never_left(case: LookupCase) -> Cause | None:
    """A send was tried and no packet left; the number of the error was not seen (as with musl)."""
    tried = [query for query in case.lookup.queries if not query.was_sent and query.error is None]
    old = [query for query in tried if case.waited_ns(query) >= WORTH_SAYING_NS or query.attempts > 1]
    if not old:
        return None
    servers = list(dict.fromkeys(query.server for query in old))
    named = listing(map(server_text, servers))
    evidence = tuple(
        Evidence(
            "connect_no_route",
            f"the kernel let no packet leave for {server_text(query.server)}: no route (ns_unreachable), "
            "or this host's firewall refuses it (local_firewall); the error itself was not seen",
            {"server": query.server.address, "tried": query.attempts, "errno": None},
        )
        for query in old
    )
    # A packet to another server did leave, so the firewall does not refuse DNS as such.
    return Cause(
        "ns_unreachable",
        "likely" if case.sent else "possible",
        f"No question leaves this host for {named}: there is no route, or a firewall of its own refuses it.",
        evidence,
        f"{_remedy(servers[0])}; and the firewall: nft list ruleset | grep -n drop",
    )


def _remedy(server: Server) -> str:
    return f"Try in the target's network namespace: ip route get {server.address}"
