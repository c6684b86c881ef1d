"""After DNS: IPv6 that goes nowhere beside IPv4 that works, and TLS that gets no answer."""

from __future__ import annotations

from situations import ETIMEDOUT, WEB, at, connecting, rows, verdict

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Server, Sibling, Situation

HOLE = Server("2001:db8::80", 443)
WORKS = Sibling(WEB, at(-3.0), in_flight=False)
NOT_TRIED = Sibling(WEB, None, in_flight=False)
HANGS = Sibling(WEB, None, in_flight=True)
OTHER_V6 = Sibling("2001:db8::81", None, in_flight=False)
ECONNRESET = 104
UP = {"is_tls": True, "tcp_state": "ESTABLISHED"}


def over_ipv6(*siblings: Sibling, retransmits: int = 1, **more: object) -> Situation:
    return connecting(family="ipv6", server=HOLE, siblings=siblings, retransmits=retransmits, **more)


def waiting(tx_queue_bytes: int) -> dict[str, object]:
    """A thread that waits for the connection's answer."""
    stream = {"fd": 3, "kind": "tcp", "state": "ESTABLISHED", "remote": [WEB, 443], "rx_queue_bytes": 0}
    return {"state": "S", "syscall": "poll", "sockets": [{**stream, "tx_queue_bytes": tx_queue_bytes}]}


@rows(
    ("IPv4 works", over_ipv6(WORKS), "ipv6_first_blackholed", "confirmed"),
    ("IPv4 was not tried", over_ipv6(NOT_TRIED), "ipv6_first_blackholed", "likely"),
    ("of two IPv4 addresses one works", over_ipv6(NOT_TRIED, WORKS), "ipv6_first_blackholed", "confirmed"),
    ("events were lost", over_ipv6(WORKS, lost={"kernel_ring": 1}), "ipv6_first_blackholed", "likely"),
    (
        "it timed out",
        over_ipv6(WORKS, status="failed", error=ETIMEDOUT),
        "ipv6_first_blackholed",
        "confirmed",
    ),
    # near misses
    ("IPv4 hangs too", over_ipv6(HANGS), "connect_after_dns", "confirmed"),
    ("the SYN was sent once", over_ipv6(WORKS, retransmits=0), "connect_after_dns", "likely"),
    ("there is no IPv4 address", over_ipv6(OTHER_V6), "connect_after_dns", "confirmed"),
    ("the lookup gave one address", over_ipv6(), "connect_after_dns", "confirmed"),
    ("IPv4 is what hangs", connecting(retransmits=1, siblings=(OTHER_V6,)), "connect_after_dns", "confirmed"),
)
def test_ipv6_first_blackholed(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """IPv6 is to blame when only IPv6 hangs, surely when IPv4 is known to work."""
    assert verdict(seen) == expected


@rows(
    ("for a second", connecting(**UP), "tls_stall", "confirmed"),
    ("for a moment", connecting(age=0.3, **UP), "tls_stall", "likely"),
    ("the program gave up", connecting(age=3.0, status="abandoned", **UP), "tls_stall", "confirmed"),
    ("broken off", connecting(age=3.0, status="failed", error=ECONNRESET, **UP), "tls_stall", "confirmed"),
    ("events were lost", connecting(lost={"kernel_ring": 1}, **UP), "tls_stall", "likely"),
    ("no lookup gave the address", connecting(lookup_name=None, **UP), "tls_stall", "confirmed"),
    # near misses
    ("it was answered, late", connecting(age=3.0, status="ok", **UP), None, None),
    ("the connection is not up", connecting(retransmits=1), "connect_after_dns", "confirmed"),
)
def test_tls_stall(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A ClientHello without an answer is the cause, a connection that is not up has another."""
    assert verdict(seen) == expected


def test_who_has_lost_the_hello() -> None:
    """An unacknowledged ClientHello tells of lost packets, an acknowledged one of a silent server."""
    lost, taken, unseen = (
        judge(connecting(thread=thread, retransmits=resent, **UP))
        for thread, resent in ((waiting(517), 3), (waiting(0), 0), (None, 0))
    )
    assert lost is not None
    assert taken is not None
    assert unseen is not None
    assert [fact.fact for fact in lost.evidence] == ["tls_hello_unanswered", "tx_queue_not_acked"]
    assert [fact.fact for fact in taken.evidence] == ["tls_hello_unanswered", "tx_queue_acked"]
    assert [fact.fact for fact in unseen.evidence] == ["tls_hello_unanswered"]
    assert "lost on the way" in lost.summary
    assert "MTU" in lost.remedy
    assert "the server says nothing" in taken.summary
