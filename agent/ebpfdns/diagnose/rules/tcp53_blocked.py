"""`tcp53_blocked`: the answer is too big for UDP, and no TCP connection to the DNS server comes up.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import reply_seen, socket_error
from ebpfdns.diagnose.threads import DNS_PORT
from ebpfdns.diagnose.wording import dig, errno_name, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase, LookupCase
    from ebpfdns.diagnose.cause import Confidence
    from ebpfdns.model.facts import Server

ECONNREFUSED, ETIMEDOUT = 111, 110
USE_TCP = frozenset({"use-vc", "usevc", "tcp"})
SYN_SENT = "SYN_SENT"


def rule(case: LookupCase) -> Cause | None:
    """A connection to port 53 has no answer, or was refused."""
    attempt = _in_thread(case) or _in_connect(case) or _ended(case)
    if attempt is None:
        return None
    server, proof, is_sure = attempt
    reason = _why_tcp(case)
    why = "The answer is too big for UDP" if case.answered else "DNS goes over TCP here"
    confidence: Confidence = "confirmed" if is_sure and reason else "likely"
    return _cause(server, f"{why}, and", (proof, *reason), confidence, case)


def of_connect(case: ConnectCase) -> Cause | None:
    """The same, told of the connection itself: why it is TCP is not known here."""
    connect = case.connect
    server = connect.server
    if server is None or server.port != DNS_PORT or connect.transport != "tcp":
        return None
    if not _is_stuck(connect.tcp_state, connect.error, is_open=case.is_open):
        return None
    proof = _syn_sent(server, connect.retransmits)
    confidence: Confidence = "likely" if connect.retransmits else "possible"
    return _cause(server, "This is DNS over TCP, and", (proof,), confidence)


def _is_stuck(tcp_state: str | None, error: int | None, *, is_open: bool) -> bool:
    return tcp_state == SYN_SENT if is_open else error in (ECONNREFUSED, ETIMEDOUT)


def _in_thread(case: LookupCase) -> tuple[Server, Evidence, bool] | None:
    """As the snapshot of the thread shows it."""
    for waited in case.thread.sockets if case.thread else ():
        if waited.is_dns and waited.remote and waited.state == SYN_SENT:
            count = waited.retransmits or 0
            return waited.remote, _syn_sent(waited.remote, count), count > 0
    return None


def _in_connect(case: LookupCase) -> tuple[Server, Evidence, bool] | None:
    """As the connect inside the lookup shows it."""
    connect = case.situation.connect
    if connect is None or connect.server is None or connect.server.port != DNS_PORT:
        return None
    if connect.transport != "tcp" or connect.tcp_state != SYN_SENT:
        return None
    return connect.server, _syn_sent(connect.server, connect.retransmits), connect.retransmits > 0


def _ended(case: LookupCase) -> tuple[Server, Evidence, bool] | None:
    """As the error of the connect tells afterwards."""
    failed = [q for q in case.lookup.queries if q.transport == "tcp" and not q.was_sent]
    for query in failed:
        if query.error in (ECONNREFUSED, ETIMEDOUT):
            return query.server, socket_error(query), True
    return None


def _why_tcp(case: LookupCase) -> tuple[Evidence, ...]:
    """A truncated answer, or resolv.conf wants it so."""
    for query in case.answered:
        if query.truncated:
            told = reply_seen(case, query)
            return (Evidence("reply_truncated", f"{told.text}, truncated", told.numbers),)
    options = (case.situation.resolv_conf or {}).get("options") or []
    wanted = sorted(USE_TCP.intersection(options))
    if wanted:
        text = f"resolv.conf has options {wanted[0]}: every question goes over TCP"
        return (Evidence("query_sent", text, {"option": wanted[0]}),)
    return ()


def _syn_sent(server: Server, retransmits: int) -> Evidence:
    text = f"the TCP connection to {server.text} is not answered; its SYN was sent {retransmits + 1} times"
    return Evidence(
        "syn_retransmitted",
        text if retransmits else f"the TCP connection to {server.text} is not answered yet",
        {"server": server.address, "port": server.port, "retransmits": retransmits},
    )


def _cause(
    server: Server,
    why: str,
    evidence: tuple[Evidence, ...],
    confidence: Confidence,
    case: LookupCase | None = None,
) -> Cause:
    is_refused = any(told.numbers.get("error") == errno_name(ECONNREFUSED) for told in evidence)
    how = "refuses TCP on" if is_refused else "does not answer TCP on"
    test = f"nc -vz -w3 {server.address} {server.port}"
    if case:
        test = dig(server, case.lookup, "+tcp +time=2 +tries=1")
    return Cause(
        "tcp53_blocked",
        confidence,
        f"{why} {server_text(server)} {how} port {server.port}.",
        evidence,
        f"Open {server.port}/tcp to {server.address}; try: {test}",
    )
