"""`tls_stall`: the TCP connection is up; the TLS handshake gets no answer.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import milliseconds, seconds, shown, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase
    from ebpfdns.diagnose.cause import Confidence


def rule(case: ConnectCase) -> Cause | None:
    """A ClientHello left on a connection that was up, and nothing has come back."""
    connect = case.connect
    if not connect.is_tls or connect.server is None or not _is_unanswered(case):
        return None
    peer = connect.server.text
    is_lost = bool(connect.retransmits or _unacked(case))
    where = "its packets are lost on the way" if is_lost else "the server says nothing"
    whose = f" ({shown(connect.lookup_name)})" if connect.lookup_name else ""
    host = shown(connect.lookup_name) if connect.lookup_name else connect.server.address
    hello = Evidence(
        "tls_hello_unanswered",
        f"the connection to {peer} is up; its ClientHello had no answer for {seconds(case.elapsed_ns)}",
        {"peer": peer, "waited_ms": milliseconds(case.elapsed_ns)},
    )
    return Cause(
        "tls_stall",
        _confidence(case),
        f"The TCP connection to {peer}{whose} is up, but its TLS handshake gets no answer: {where}.",
        (hello, *_queue(case)),
        f"Try: openssl s_client -connect {host}:{connect.server.port}"
        + ("; look for a path MTU that is too small (clamp the MSS)" if is_lost else ""),
    )


def _is_unanswered(case: ConnectCase) -> bool:
    """In flight; or given up by the program, or broken off, before an answer."""
    return case.is_open or case.connect.status in {"abandoned", "failed"}


def _confidence(case: ConnectCase) -> Confidence:
    """A second of silence is a fact; less may be a slow server."""
    return "confirmed" if case.elapsed_ns >= A_SECOND_NS else "likely"


def _unacked(case: ConnectCase) -> int:
    stream = case.socket
    return (stream.tx_queue_bytes or 0) if stream else 0


def _queue(case: ConnectCase) -> tuple[Evidence, ...]:
    """Whether the other end's kernel has taken the hello."""
    connect, unacked = case.connect, _unacked(case)
    if connect.retransmits or unacked:
        again = f"; it was sent again {times(connect.retransmits)}" if connect.retransmits else ""
        text = f"the ClientHello is not acknowledged{again}"
        numbers = {"retransmits": connect.retransmits, "tx_queue_bytes": unacked or None}
        return (Evidence("tx_queue_not_acked", text, numbers),)
    if case.socket is not None:
        text = "the ClientHello is acknowledged: the other end has it"
        return (Evidence("tx_queue_acked", text, {"tx_queue_bytes": 0}),)
    return ()
