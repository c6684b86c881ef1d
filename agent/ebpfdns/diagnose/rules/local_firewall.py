"""`local_firewall`: this host's own firewall refuses to send the question, or drops the answer.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import listing, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase, LookupCase
    from ebpfdns.diagnose.cause import Confidence
    from ebpfdns.model.facts import Query, Server

EPERM = 1
REMEDY = "Try in the target's network namespace: nft list ruleset | grep -n -e drop -e reject"
CONNTRACK = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max"


def rule(case: LookupCase) -> Cause | None:
    """The kernel refused to send, and no other server is being waited for; or it dropped what came back."""
    refused = [q for q in case.lookup.queries if q.error == EPERM and not q.was_sent and not q.is_answered]
    if refused and not case.silent and not (case.is_open and case.answered and not _waits_for_tcp(refused)):
        return _refused(case, refused)
    dropped = [query for query in case.silent if query.dropped_ns is not None]
    return _dropped(case, dropped) if dropped else None


def of_connect(case: ConnectCase) -> Cause | None:
    """The host drops the packets of this very connection."""
    connect = case.connect
    if not connect.refused_here or connect.server is None or not (case.is_open or connect.status == "failed"):
        return None
    return Cause(
        "local_firewall",
        "confirmed",
        f"This host's own firewall does not let the connection to {connect.server.text} out.",
        (
            Evidence(
                "send_refused_eperm",
                f"a netfilter rule of this host drops what is sent to {connect.server.text}",
                {"server": connect.server.address, "port": connect.server.port, "errno": None},
            ),
        ),
        REMEDY,
    )


def _waits_for_tcp(refused: list[Query]) -> bool:
    """Whether a connection is being made in vain: of a refused SYN the program is not told."""
    return any(query.transport == "tcp" for query in refused)


def _refused(case: LookupCase, refused: list[Query]) -> Cause:
    servers = list(dict.fromkeys(query.server for query in refused))
    evidence = [_send_refused(server, refused) for server in servers]
    table = _conntrack(case)
    worked = case.answered and not _waits_for_tcp(refused)
    full = "its connection tracking table is full" if table else "its own firewall refuses it"
    return Cause(
        "local_firewall",
        "likely" if worked else "confirmed",
        f"This host does not send DNS questions to {listing(map(server_text, servers))}: {full}.",
        (*evidence, *table),
        f"Raise net.netfilter.nf_conntrack_max; {CONNTRACK}" if table else f"{REMEDY}; {CONNTRACK}",
    )


def _send_refused(server: Server, refused: list[Query]) -> Evidence:
    transports = {query.transport for query in refused if query.server == server}
    how = "a connection by TCP to" if transports == {"tcp"} else "sending to"
    return Evidence(
        "send_refused_eperm",
        f"the kernel refused {how} {server_text(server)} (EPERM)",
        {"server": server.address, "port": server.port, "errno": EPERM},
    )


def _conntrack(case: LookupCase) -> tuple[Evidence, ...]:
    """That the table of connections is full, when it is."""
    table = (case.situation.process or {}).get("conntrack") or {}
    count, most = table.get("count"), table.get("max")
    if count is None or most is None or count < most:
        return ()
    text = f"the table of connections holds {count} entries, as many as it may"
    return (Evidence("conntrack_full", text, {"conntrack_count": count, "conntrack_max": most}),)


def _dropped(case: LookupCase, dropped: list[Query]) -> Cause:
    servers = list(dict.fromkeys(query.server for query in dropped))
    named = listing(map(server_text, servers))
    evidence = tuple(
        Evidence(
            "reply_dropped",
            f"an answer of {server_text(server)} arrived, and a netfilter rule of this host dropped it",
            {"server": server.address, "replies": sum(query.server == server for query in dropped)},
        )
        for server in servers
    )
    waited_long = any(case.waited_ns(query) >= A_SECOND_NS for query in dropped)
    confidence: Confidence = "confirmed" if waited_long and len(dropped) == len(case.silent) else "likely"
    return Cause(
        "local_firewall",
        confidence,
        f"{named} answers, but this host's own firewall drops the answers.",
        evidence,
        REMEDY,
    )
