"""Silent servers, late answers, lost ones: which of them it is, and how sure that can be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from situations import (
    AAAA,
    EAI_AGAIN,
    ECONNREFUSED,
    ENETUNREACH,
    ONE,
    THREE,
    TWO,
    ask,
    both,
    conf,
    failed,
    musl,
    rows,
    situation,
    tcp,
    thread,
    udp,
    verdict,
)

from ebpfdns.diagnose.judge import judge

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation

TWO_SERVERS = conf(ONE, TWO)
THREE_SERVERS = conf(ONE, TWO, THREE)
#: A question that server ONE did not answer in its 5 s, and was asked again.
TIMED_OUT = both(resent=5.0)


@rows(
    ("failed after both rounds", situation(TIMED_OUT, age=10.0, **EAI_AGAIN), "ns_silent", "confirmed"),
    ("asked again, still open", situation(TIMED_OUT, age=8.0), "ns_silent", "confirmed"),
    ("too early: it may just be slow", situation(both(), age=1.0), "ns_silent", "likely"),
    ("its time-out has passed", situation(both(), age=5.2), "ns_silent", "confirmed"),
    (
        "a shorter time-out has passed",
        situation(both(), age=2.0, resolv_conf=conf(ONE, options=["timeout:1"])),
        "ns_silent",
        "confirmed",
    ),
    (
        "both of two servers were given up",
        situation(both() + both(TWO, sent=5.0), age=20.0, resolv_conf=TWO_SERVERS, **EAI_AGAIN),
        "ns_silent",
        "confirmed",
    ),
    (
        "the second of two servers was not asked yet",
        situation(both(), age=4.9, resolv_conf=TWO_SERVERS),
        "ns_silent",
        "likely",
    ),
    (
        "not asked even when the time-out has passed",
        situation(both(resent=5.0), age=8.0, resolv_conf=TWO_SERVERS),
        "ns_silent",
        "likely",
    ),
    (
        "the second server has not had its time",
        situation(both() + both(TWO, sent=5.0), age=8.0, resolv_conf=TWO_SERVERS),
        "ns_silent",
        "likely",
    ),
    ("resolv.conf was not read", situation(TIMED_OUT, age=8.0, resolv_conf=None), "ns_silent", "likely"),
    (
        "resolv.conf was not read, but the resolver has failed",
        situation(TIMED_OUT, age=10.0, resolv_conf=None, **EAI_AGAIN),
        "ns_silent",
        "confirmed",
    ),
    ("no snapshot is needed", situation(TIMED_OUT, age=8.0, thread=None), "ns_silent", "confirmed"),
    (
        "musl cannot hear of a closed port",
        musl(both(resent=2.5), age=5.0, **EAI_AGAIN),
        "ns_silent",
        "likely",
    ),
    (
        "who asks is not known, but its socket is connected",
        situation(TIMED_OUT, age=8.0, resolver="unknown"),
        "ns_silent",
        "confirmed",
    ),
    (
        "nor is its socket",
        situation(TIMED_OUT, age=8.0, resolver="unknown", thread=thread(udp(None))),
        "ns_silent",
        "likely",
    ),
    (
        "a program that speaks DNS itself",
        situation(TIMED_OUT, age=8.0, api="wire", thread=None),
        "ns_silent",
        "likely",
    ),
    (
        "a local daemon is behind it",
        situation(both("127.0.0.1", resent=5.0), age=10.0, resolv_conf=conf("127.0.0.53"), **EAI_AGAIN),
        "ns_silent",
        "likely",
    ),
    (
        "another server refuses",
        situation(
            [*both(error=ECONNREFUSED), *both(TWO, sent=0.01, resent=5.0)],
            age=10.0,
            resolv_conf=TWO_SERVERS,
            **EAI_AGAIN,
        ),
        "ns_silent",
        "likely",
    ),
    (
        "another server has no route",
        situation([failed(error=ENETUNREACH), *both(TWO)], age=3.0, resolv_conf=TWO_SERVERS),
        "ns_silent",
        "likely",
    ),
    (
        "packets are not seen: silence is no fact",
        situation(TIMED_OUT, age=8.0, wire=False),
        "ns_silent",
        "possible",
    ),
    (
        "under way before tracing began, and asked again since",
        situation(TIMED_OUT, age=8.0, before_attach=True),
        "ns_silent",
        "confirmed",
    ),
    (
        "asked before tracing began",
        situation([ask(sent_is_known=False)], age=8.0, before_attach=True),
        "ns_silent",
        "likely",
    ),
    # near misses
    ("hardly begun", situation(both(), age=0.15), "unknown", "possible"),
    ("one answer came", situation([*both(), ask(reply=0.002, name=b"x.")], age=3.0), "unknown", "possible"),
    (
        "something lies unread in the socket",
        situation(both(), age=3.0, thread=thread(udp(rx=768))),
        "unknown",
        "possible",
    ),
    (
        "asked before tracing began, with an answer in its socket",
        situation([ask(sent_is_known=False)], age=3.0, before_attach=True, thread=thread(udp(rx=768))),
        "unknown",
        "possible",
    ),
    (
        "stopped by a signal",
        situation(both(), age=3.0, thread=thread(udp(), state="T")),
        "target_stopped",
        "confirmed",
    ),
    (
        "an answer that fits no question",
        situation(both(), age=3.0, wrong_ids=1),
        "reply_ignored",
        "confirmed",
    ),
)
def test_ns_silent(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A server is called silent when nothing came; surely when it had its time and no doubt is left."""
    assert verdict(seen) == expected


@rows(
    (
        "the second answered",
        situation(both() + both(TWO, sent=5.0, reply=5.01), age=5.02, status="ok", resolv_conf=TWO_SERVERS),
        "first_ns_dead",
        "confirmed",
    ),
    (
        "the second said that there is no such name",
        situation(both() + both(TWO, sent=5.0, reply=5.01, rcode=3), age=5.02, status="failed", code=-2),
        "first_ns_dead",
        "confirmed",
    ),
    (
        "the second answered, the lookup goes on",
        situation([*both(), ask(TWO, sent=5.0, reply=5.01), ask(TWO, AAAA, sent=5.0)], age=5.05),
        "first_ns_dead",
        "confirmed",
    ),
    (
        "two are dead, the third answered",
        situation(
            both() + both(TWO, sent=5.0) + both(THREE, sent=8.0, reply=8.01),
            age=8.02,
            status="ok",
            resolv_conf=THREE_SERVERS,
        ),
        "first_ns_dead",
        "confirmed",
    ),
    (
        "the second was just asked",
        situation(both() + both(TWO, sent=5.0), age=5.3, resolv_conf=TWO_SERVERS),
        "first_ns_dead",
        "likely",
    ),
    (
        "a program that speaks DNS itself: its first server may refuse unheard",
        situation([ask(), ask(TWO, sent=2.0, reply=2.01)], age=2.02, status="ok", api="wire"),
        "first_ns_dead",
        "likely",
    ),
    # near misses
    (
        "the second is silent too",
        situation(both() + both(TWO, sent=5.0), age=6.5, resolv_conf=TWO_SERVERS),
        "ns_silent",
        "likely",
    ),
    (
        "musl asks both at once and waits for none",
        musl(
            [replace(q, settled=True) for q in both()] + both(TWO, reply=0.02),
            age=0.02,
            status="ok",
            resolv_conf=TWO_SERVERS,
        ),
        None,
        None,
    ),
    (
        "the first refuses, at once",
        situation(both(error=ECONNREFUSED) + both(TWO, sent=0.002, reply=0.01), age=0.02, status="ok"),
        "ns_refused",
        "likely",
    ),
    (
        "the first answered as well",
        situation(both(reply=6.0) + both(TWO, sent=5.0, reply=6.1), age=6.1, status="ok"),
        "late_reply",
        "confirmed",
    ),
)
def test_first_ns_dead(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The first server is called dead when it let its time pass and a later one was needed."""
    assert verdict(seen) == expected


@rows(
    (
        "never answered, repeated, then one family is enough",
        situation([ask(reply=0.002), ask(qtype=AAAA, resent=5.0)], age=15.0, status="ok"),
        "one_reply_lost",
        "confirmed",
    ),
    (
        "repeated from a new socket",
        situation([ask(reply=0.002), ask(qtype=AAAA), ask(qtype=AAAA, sent=10.0, socket=3)], age=11.0),
        "one_reply_lost",
        "confirmed",
    ),
    (
        "the repetition was answered at once",
        situation([ask(reply=0.002), ask(qtype=AAAA, resent=5.0, reply=5.01)], age=5.02, status="ok"),
        "one_reply_lost",
        "confirmed",
    ),
    (
        "the other way round",
        situation([ask(resent=5.0), ask(qtype=AAAA, reply=0.002)], age=8.0),
        "one_reply_lost",
        "confirmed",
    ),
    ("not repeated yet", situation([ask(reply=0.002), ask(qtype=AAAA)], age=1.0), "one_reply_lost", "likely"),
    (
        "the name is spelt in another case each time",
        situation([ask(reply=0.002, name=b"wWw.lab.tEst."), ask(qtype=AAAA, resent=5.0)], age=8.0),
        "one_reply_lost",
        "confirmed",
    ),
    (
        "musl fails",
        musl([ask(reply=0.002), ask(qtype=AAAA, resent=2.5)], age=5.0, **EAI_AGAIN),
        "one_reply_lost",
        "confirmed",
    ),
    # near misses
    ("both are missing", situation(TIMED_OUT, age=8.0), "ns_silent", "confirmed"),
    ("not a second yet", situation([ask(reply=0.002), ask(qtype=AAAA)], age=0.5), "unknown", "possible"),
    (
        "the one answer is an error",
        situation([ask(reply=0.002, rcode=2), ask(qtype=AAAA)], age=2.0),
        "rcode_retry",
        "likely",
    ),
    (
        "the missing one is of another name",
        situation([ask(reply=0.002, name=b"a."), ask(qtype=AAAA, name=b"b.")], age=2.0),
        "unknown",
        "possible",
    ),
    (
        "packets are not seen",
        situation([ask(reply=0.002), ask(qtype=AAAA, resent=5.0)], age=8.0, wire=False),
        "one_reply_lost",
        "possible",
    ),
    (
        "both came, slowly",
        situation([ask(reply=0.5), ask(qtype=AAAA, reply=0.6)], age=0.6, status="ok"),
        None,
        None,
    ),
)
def test_one_reply_lost(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """An answer is called lost when its twin came and it did not; surely when it was asked for again."""
    assert verdict(seen) == expected


@rows(
    (
        "both questions, a second after they were repeated",
        situation(both(resent=5.0, reply=6.0), age=6.0, status="ok"),
        "late_reply",
        "confirmed",
    ),
    (
        "while the second server is asked",
        situation(both(reply=6.0) + both(TWO, sent=5.0), age=8.0, resolv_conf=TWO_SERVERS),
        "late_reply",
        "confirmed",
    ),
    (
        "a single question may have been lost, and answered slowly when repeated",
        situation([ask(resent=5.0, reply=6.0)], age=6.0, status="ok"),
        "late_reply",
        "likely",
    ),
    # near misses
    (
        "slow, but in time",
        situation(both(reply=3.0), age=3.0, status="ok"),
        "unknown",
        "possible",
    ),
    (
        "the repetition was answered at once: the first questions were lost",
        situation(both(resent=5.0, reply=5.01), age=5.02, status="ok"),
        "unknown",
        "possible",
    ),
    (
        "musl repeats long before it gives up",
        musl(both(resent=2.5, reply=3.5), age=3.5, status="ok"),
        "unknown",
        "possible",
    ),
    ("not yet", situation(both(), age=4.0), "ns_silent", "likely"),
)
def test_late_reply(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """An answer is called late when the resolver had given that attempt up before it came."""
    assert verdict(seen) == expected


@rows(
    ("glibc, a second long", situation(both(), age=2.0, wrong_ids=2), "reply_ignored", "confirmed"),
    ("it may still come", situation(both(), age=0.5, wrong_ids=2), "reply_ignored", "likely"),
    (
        "a socket used for many lookups",
        musl(both(), age=2.0, wrong_ids=2),
        "reply_ignored",
        "likely",
    ),
    (
        "from another address: the twin only looks settled",
        musl([replace(q, settled=True) for q in both()], age=2.0, wrong_ids=1),
        "reply_ignored",
        "likely",
    ),
    # near misses
    (
        "the right answers came as well",
        situation(both(reply=0.01), age=0.02, status="ok", wrong_ids=1),
        None,
        None,
    ),
)
def test_reply_ignored(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """An answer is called ignored when it fits no question, and a question waits."""
    assert verdict(seen) == expected


TRUNCATED = ask(reply=0.002, truncated=True)
BY_TCP: dict[str, Any] = {"transport": "tcp", "socket": 9}


@rows(
    (
        "truncated, and the SYN is repeated",
        situation(
            [TRUNCATED], age=3.0, thread=thread(tcp(state="SYN_SENT", retransmits=2), syscall="connect")
        ),
        "tcp53_blocked",
        "confirmed",
    ),
    (
        "resolv.conf wants TCP",
        situation(
            [],
            age=3.0,
            thread=thread(tcp(state="SYN_SENT", retransmits=2)),
            resolv_conf=conf(ONE, options=["use-vc"]),
        ),
        "tcp53_blocked",
        "confirmed",
    ),
    (
        "the SYN is not repeated yet",
        situation([TRUNCATED], age=0.9, thread=thread(tcp(state="SYN_SENT"))),
        "tcp53_blocked",
        "likely",
    ),
    (
        "why it is TCP was not seen",
        situation([], age=3.0, before_attach=True, thread=thread(tcp(state="SYN_SENT", retransmits=2))),
        "tcp53_blocked",
        "likely",
    ),
    (
        "refused",
        situation([TRUNCATED, failed(error=ECONNREFUSED, transport="tcp")], age=0.01, **EAI_AGAIN),
        "tcp53_blocked",
        "confirmed",
    ),
    # near misses
    (
        "connected: the question has no answer",
        situation([TRUNCATED, ask(sent=0.01, **BY_TCP)], age=3.0, thread=thread(tcp(), syscall="read")),
        "tcp53_silent",
        "confirmed",
    ),
    (
        "answered over TCP",
        situation([TRUNCATED, ask(sent=0.01, reply=0.02, **BY_TCP)], age=0.03, status="ok"),
        None,
        None,
    ),
)
def test_tcp53_blocked(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """TCP is called blocked when a connection to port 53 has no answer; surely when it is seen why TCP."""
    assert verdict(seen) == expected


@rows(
    (
        "the thread reads from it",
        situation([TRUNCATED, ask(sent=0.01, **BY_TCP)], age=2.0, thread=thread(tcp(), syscall="read")),
        "tcp53_silent",
        "confirmed",
    ),
    (
        "not even acknowledged",
        situation([ask(**BY_TCP)], age=2.0, thread=thread(tcp(tx=60, retransmits=2), syscall="read")),
        "tcp53_silent",
        "confirmed",
    ),
    ("no snapshot", situation([ask(**BY_TCP)], age=2.0, thread=None), "tcp53_silent", "likely"),
    (
        "asked before tracing began",
        situation([], age=2.0, before_attach=True, thread=thread(tcp())),
        "tcp53_silent",
        "likely",
    ),
    ("packets are not seen", situation([ask(**BY_TCP)], age=2.0, wire=False), "tcp53_silent", "possible"),
    # near misses
    (
        "the answer is there",
        situation([ask(**BY_TCP)], age=2.0, thread=thread(tcp(rx=90))),
        "unknown",
        "possible",
    ),
    ("hardly begun", situation([ask(**BY_TCP)], age=0.1, thread=thread(tcp())), "unknown", "possible"),
)
def test_tcp53_silent(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A connection is called silent when a question left by it and nothing came back."""
    assert verdict(seen) == expected


def test_a_silent_server_is_told_with_its_numbers() -> None:
    """The evidence of silence names each server, how long it was waited for, and how often it was asked."""
    cause = judge(situation([ask(resent=5.0)], age=8.001))
    assert cause is not None
    told = next(one for one in cause.evidence if one.fact == "no_reply")
    assert told.numbers == {"server": ONE, "port": 53, "waited_ms": 8000.0, "queries": 1, "sent": 2}
    assert f"@{ONE} www.lab.test" in cause.remedy


def test_what_musl_cannot_hear_is_said() -> None:
    """Where a closed port would look silent too, the evidence says that it could not be told."""
    cause = judge(musl(both(resent=2.5), age=5.0, **EAI_AGAIN))
    assert cause is not None
    assert any("closed port" in one.text for one in cause.evidence if one.fact == "probe_missing")


def test_the_story_of_a_lookup_with_a_dead_first_server() -> None:
    """As the lookup goes on the verdict moves from a silent server to a dead first one, and ends surely."""
    said = [
        verdict(situation(both(), age=1.0, resolv_conf=TWO_SERVERS)),
        verdict(situation(both(), age=4.0, resolv_conf=TWO_SERVERS)),
        verdict(situation(both() + both(TWO, sent=5.0), age=5.01, resolv_conf=TWO_SERVERS)),
        verdict(
            situation(
                both() + both(TWO, sent=5.0, reply=5.02), age=5.03, status="ok", resolv_conf=TWO_SERVERS
            )
        ),
    ]
    assert said == [
        ("ns_silent", "likely"),
        ("ns_silent", "likely"),
        ("first_ns_dead", "likely"),
        ("first_ns_dead", "confirmed"),
    ]
