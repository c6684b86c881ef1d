"""Errors at send, error codes in answers, connects, and what is left when nothing fits."""

from __future__ import annotations

from situations import (
    AAAA,
    EACCES,
    EAI_AGAIN,
    ECONNREFUSED,
    EHOSTUNREACH,
    EINVAL,
    ENETUNREACH,
    EPERM,
    ETIMEDOUT,
    NAME,
    ONE,
    TWO,
    ask,
    at,
    both,
    conf,
    connecting,
    failed,
    musl,
    rows,
    situation,
    thread,
    udp,
    verdict,
)

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Server, Situation

TWO_SERVERS = conf(ONE, TWO)
EAI_NONAME, EAI_SERVICE = -2, -8


@rows(
    (
        "one server, failed at once",
        situation(both(error=ECONNREFUSED), age=0.001, **EAI_AGAIN),
        "ns_refused",
        "confirmed",
    ),
    (
        "two servers refuse",
        situation(both(error=ECONNREFUSED) + both(TWO, error=ECONNREFUSED), age=0.002, **EAI_AGAIN),
        "ns_refused",
        "confirmed",
    ),
    ("still in flight", situation(both(error=ECONNREFUSED), age=1.0), "ns_refused", "confirmed"),
    (
        "another server is being asked",
        situation(both(error=ECONNREFUSED) + both(TWO, sent=0.9), age=1.0, resolv_conf=TWO_SERVERS),
        "ns_refused",
        "likely",
    ),
    (
        "another server answered",
        situation(both(error=ECONNREFUSED) + both(TWO, sent=0.002, reply=0.003), age=0.004, status="ok"),
        "ns_refused",
        "likely",
    ),
    # near misses
    ("it works again", situation(both(error=ECONNREFUSED, reply=0.02), age=0.02, status="ok"), None, None),
    (
        "musl is not told: it looks silent, and that is not sure",
        musl(both(resent=2.5), age=5.0, **EAI_AGAIN),
        "ns_silent",
        "likely",
    ),
    (
        "rcode REFUSED is another thing",
        situation(both(reply=0.002, rcode=5, resent=0.003), age=0.004, **EAI_AGAIN),
        "rcode_retry",
        "confirmed",
    ),
    (
        "TCP was refused",
        situation([failed(error=ECONNREFUSED, transport="tcp")], age=0.01, **EAI_AGAIN),
        "tcp53_blocked",
        "likely",
    ),
)
def test_ns_refused(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A port is called closed when the socket was told so, and nobody else is being waited for."""
    assert verdict(seen) == expected


@rows(
    (
        "no network",
        situation([failed(error=ENETUNREACH)], age=0.001, **EAI_AGAIN),
        "ns_unreachable",
        "confirmed",
    ),
    (
        "a prohibit route",
        situation([failed(error=EACCES)], age=0.001, **EAI_AGAIN),
        "ns_unreachable",
        "confirmed",
    ),
    (
        "a blackhole route",
        situation([failed(error=EINVAL)], age=0.001, **EAI_AGAIN),
        "ns_unreachable",
        "confirmed",
    ),
    (
        "a router says so",
        situation(both(error=EHOSTUNREACH), age=3.1, **EAI_AGAIN),
        "ns_unreachable",
        "confirmed",
    ),
    (
        "another server answered",
        situation([failed(error=ENETUNREACH), ask(TWO, reply=0.01)], age=0.02, status="ok"),
        "ns_unreachable",
        "likely",
    ),
    (
        "musl: nothing left, and why was not seen",
        musl([failed(error=None, attempts=2)], age=5.0, **EAI_AGAIN),
        "ns_unreachable",
        "possible",
    ),
    (
        "musl: nothing left for one server, but the other was asked",
        musl([failed(error=None, attempts=2), *both(TWO, reply=0.01)], age=0.02, status="ok"),
        "ns_unreachable",
        "likely",
    ),
    # near misses
    ("a firewall", situation([failed(error=EPERM)], age=0.001, **EAI_AGAIN), "local_firewall", "confirmed"),
    ("only just tried", musl([failed(error=None)], age=0.002), "unknown", "possible"),
    (
        "the time goes into another server",
        situation([failed(error=ENETUNREACH), *both(TWO, resent=5.0)], age=10.0, **EAI_AGAIN),
        "ns_silent",
        "likely",
    ),
)
def test_ns_unreachable(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A server is called unreachable when the kernel or a router said so; an unseen error leaves a doubt."""
    assert verdict(seen) == expected


def test_an_unseen_error_names_both_causes() -> None:
    """Where the error itself was not seen, the evidence names the firewall beside the missing route."""
    cause = judge(musl([failed(error=None, attempts=2)], age=5.0, **EAI_AGAIN))
    assert cause is not None
    assert "local_firewall" in cause.evidence[0].text
    assert "ip route get" in cause.remedy
    assert "nft" in cause.remedy


@rows(
    (
        "SERVFAIL in both rounds",
        situation(both(reply=0.002, rcode=2, resent=0.003), age=0.004, **EAI_AGAIN),
        "rcode_retry",
        "confirmed",
    ),
    (
        "SERVFAIL, and the next server has the answer",
        situation(both(reply=3.0, rcode=2) + both(TWO, sent=3.001, reply=3.01), age=3.02, status="ok"),
        "rcode_retry",
        "confirmed",
    ),
    (
        "SERVFAIL to one, nothing to the other: not asked again yet",
        situation([ask(reply=0.002, rcode=2), ask(qtype=AAAA)], age=2.0),
        "rcode_retry",
        "likely",
    ),
    (
        "SERVFAIL, and the next server is silent",
        situation(both(reply=0.002, rcode=2) + both(TWO, sent=0.003), age=4.0, resolv_conf=TWO_SERVERS),
        "rcode_retry",
        "likely",
    ),
    (
        "failed, asked once",
        situation(both(reply=0.002, rcode=2), age=0.003, **EAI_AGAIN),
        "rcode_retry",
        "likely",
    ),
    ("musl asks again", musl(both(reply=0.002, rcode=2, resent=0.003), age=2.0), "rcode_retry", "confirmed"),
    ("musl ignores REFUSED and waits", musl(both(reply=0.002, rcode=5), age=1.0), "rcode_retry", "confirmed"),
    ("musl ignores any other error", musl(both(reply=0.002, rcode=9), age=1.0), "rcode_retry", "confirmed"),
    # near misses
    (
        "no such name",
        situation(both(reply=0.002, rcode=3), age=0.003, status="failed", code=EAI_NONAME),
        None,
        None,
    ),
    (
        "one good answer is good enough for glibc",
        situation([ask(reply=0.002), ask(qtype=AAAA, reply=0.003, rcode=2)], age=0.004, status="ok"),
        None,
        None,
    ),
    ("no error at all", situation(both(), age=1.0), "ns_silent", "likely"),
)
def test_rcode_retry(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """An error code is the cause when the resolver asked again because of it, or waits in spite of it."""
    assert verdict(seen) == expected


@rows(
    ("repeated", connecting(retransmits=1), "connect_after_dns", "confirmed"),
    ("not repeated yet", connecting(), "connect_after_dns", "likely"),
    (
        "timed out",
        connecting(status="failed", age=130.0, error=ETIMEDOUT, retransmits=6),
        "connect_after_dns",
        "confirmed",
    ),
    (
        "given up by the program",
        connecting(status="abandoned", age=3.0, retransmits=2),
        "connect_after_dns",
        "confirmed",
    ),
    (
        "no lookup gave the address",
        connecting(retransmits=2, lookup_name=None),
        "connect_after_dns",
        "possible",
    ),
    ("events were lost", connecting(retransmits=2, lost={"kernel_ring": 2}), "connect_after_dns", "likely"),
    # near misses
    (
        "refused: a failure, not stuck",
        connecting(status="failed", age=0.01, error=ECONNREFUSED, tcp_state="CLOSE"),
        None,
        None,
    ),
    ("it worked", connecting(status="ok", age=0.3, tcp_state="ESTABLISHED"), None, None),
    ("DNS over TCP", connecting(port=53, retransmits=1), "tcp53_blocked", "likely"),
    ("DNS over TCP, not repeated yet", connecting(port=53), "tcp53_blocked", "possible"),
    ("DNS over TLS", connecting(port=853, retransmits=1), "unknown", "possible"),
    ("UDP", connecting(transport="udp", tcp_state=None), "unknown", "possible"),
    (
        "a local socket",
        connecting(transport="unix", tcp_state=None, server=None, path=b"/run/x", family="unix"),
        "unknown",
        "possible",
    ),
)
def test_connects(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A connect is the cause when its SYN has no answer, surely when a lookup gave the address."""
    assert verdict(seen) == expected


@rows(
    (
        "glibc's connect returned EPERM",
        situation([failed(error=EPERM)], age=0.01, **EAI_AGAIN),
        "local_firewall",
        "confirmed",
    ),
    (
        "the other server answered",
        situation([failed(error=EPERM), ask(TWO, reply=0.01)], age=0.02, status="ok"),
        "local_firewall",
        "likely",
    ),
    (
        "a prohibit route",
        situation([failed(error=EACCES)], age=0.01, **EAI_AGAIN),
        "ns_unreachable",
        "confirmed",
    ),
)
def test_local_firewall(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """EPERM is the own firewall's word."""
    assert verdict(seen) == expected


@rows(
    (
        "by a signal",
        situation(both(), age=2.0, thread=thread(udp(), state="T")),
        "target_stopped",
        "confirmed",
    ),
    (
        "by a debugger",
        situation(both(), age=2.0, thread=thread(state="t", syscall=None)),
        "target_stopped",
        "confirmed",
    ),
    ("running", situation(age=2.0, thread=thread(state="R", syscall="running")), "unknown", "possible"),
    (
        "a snapshot of then says nothing of a lookup that has ended",
        situation(both(reply=0.01), age=0.02, status="ok", thread=thread(state="T")),
        None,
        None,
    ),
)
def test_target_stopped(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A stopped thread explains everything else."""
    assert verdict(seen) == expected


@rows(
    ("answered at once", situation(both(reply=0.002), age=0.003, status="ok"), None, None),
    ("from a file", situation(age=0.001, status="ok"), None, None),
    (
        "no such name",
        situation(both(reply=0.01, rcode=3), age=0.02, status="failed", code=EAI_NONAME),
        None,
        None,
    ),
    (
        "no such name, by packets only",
        situation([ask(reply=0.01, rcode=3)], age=0.02, status="failed", api="wire"),
        None,
        None,
    ),
    ("a bad service", situation(age=0.001, status="failed", code=EAI_SERVICE), None, None),
    ("the thread went away early", situation(both(), age=0.1, status="abandoned"), None, None),
    (
        "its socket was closed early",
        situation([ask()], age=0.1, status="failed", api="wire", socket_closed=True),
        None,
        None,
    ),
    ("slow without a reason", situation(age=3.0, status="ok"), "unknown", "possible"),
    (
        "no such name, slowly",
        situation(both(reply=2.0, rcode=3), age=2.0, status="failed", code=EAI_NONAME),
        "unknown",
        "possible",
    ),
    ("failed without a question", situation(age=0.001, **EAI_AGAIN), "unknown", "possible"),
    ("the thread went away late", situation(age=2.0, status="abandoned"), "unknown", "possible"),
    ("nothing at all was judged", Situation(now_ns=at(2.0)), None, None),
)
def test_who_is_healthy(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """What ended quickly as the servers said needs no cause; the rest has one, if only `unknown`."""
    assert verdict(seen) == expected


@rows(
    ("packets are not seen", situation(age=2.0, wire=False), "agent_blind", "confirmed"),
    (
        "packets are not seen, events were lost",
        situation(age=2.0, wire=False, lost={"kernel_ring": 1}),
        "agent_blind",
        "likely",
    ),
    ("events were lost", situation(age=2.0, lost={"kernel_ring": 1}), "agent_blind", "possible"),
    ("a map was full", situation(age=2.0, may_be_missed=True), "agent_blind", "possible"),
    ("a counter that did not move", situation(age=2.0, lost={"kernel_ring": 0}), "unknown", "possible"),
    ("quick and well", situation(both(reply=0.01), age=0.02, status="ok", wire=False), None, None),
    # what another rule can say in spite of it
    (
        "a refusal was seen",
        situation([failed(error=ENETUNREACH)], age=2.0, wire=False),
        "ns_unreachable",
        "confirmed",
    ),
)
def test_agent_blind(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The agent says that it is blind when no rule matches and something kept it from seeing."""
    assert verdict(seen) == expected


def test_unknown_tells_what_the_thread_sits_in() -> None:
    """Without any question the evidence names the call, the local socket, and what was not observable."""
    waits = thread({"fd": 4, "kind": "unix", "state": "CONNECTED", "path": "/run/x\n"}, syscall="recvmsg")
    cause = judge(situation(age=4.0, thread=waits, missing=("Go symbols",)))
    assert cause is not None
    told = {one.fact: one for one in cause.evidence}
    assert told["query_sent"].numbers == {"elapsed_ms": 4000.0, "queries": 0, "unanswered": 0}
    assert told["blocked_in_syscall"].numbers["syscall"] == "recvmsg"
    assert told["unix_peer_waited_for"].numbers["path"] == r"/run/x\x0a"
    assert "Go symbols" in told["probe_missing"].text
    assert cause.remedy == "Try: cat /proc/10/task/11/stack; ss -tuxp | grep pid=10"


def test_a_name_cannot_smuggle_a_command_into_the_remedy() -> None:
    """Whatever the program looked up, the remedy's command has it as one quoted argument, printable."""
    for name in (b"$(reboot)", b"a;b", b"@192.0.2.1", b"-f/etc/passwd", b"+trace", b"a\nb", b"'", b"\xff"):
        cause = judge(situation(both(), age=2.0, name=name))
        assert cause is not None
        assert " -q " in cause.remedy
        assert cause.remedy.isprintable()
        assert cause.remedy.isascii()
    cause = judge(situation(both(), age=2.0, name=b"it's $(reboot)"))
    assert cause is not None
    assert """-q 'it'"'"'s $(reboot)'.""" in cause.remedy


def test_a_reverse_lookup_is_asked_as_one() -> None:
    """The remedy of a reverse lookup asks for the address."""
    cause = judge(situation([ask(qtype=12)], age=2.0, name=None, address="192.0.2.7", api="getnameinfo"))
    assert cause is not None
    assert "-x 192.0.2.7" in cause.remedy


def test_questions_beyond_those_kept_weaken_silence_only() -> None:
    """More questions than a lookup keeps may have been answered: silence is less sure, a refusal is not."""
    many = situation(both(resent=5.0), age=8.0, more_queries=4)
    assert verdict(many) == ("ns_silent", "likely")
    refused = situation(both(error=ECONNREFUSED), age=1.0, more_queries=4)
    assert verdict(refused) == ("ns_refused", "confirmed")


def test_a_connect_inside_a_lookup_is_judged_as_the_lookup() -> None:
    """A connect to port 53 that a lookup makes is part of that lookup."""
    link = connecting(port=53, retransmits=2, in_lookup=True, server=Server(ONE, 53)).connect
    seen = situation([ask(reply=0.002, truncated=True)], age=3.0, thread=None, connect=link)
    assert verdict(seen) == ("tcp53_blocked", "confirmed")
    assert seen.lookup is not None
    assert seen.lookup.name == NAME
