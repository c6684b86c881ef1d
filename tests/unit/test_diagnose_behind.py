"""Behind a local daemon: what it waits for itself becomes the cause, as sure as the join to it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from situations import AAAA, ONE, A, S, ask, at, both, conf, local_thread, rows, situation, verdict

from ebpfdns.diagnose import conclusion
from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Hop, HopConnect, Query, Server, Situation

DOT, UPSTREAM, FORWARDER = "resolved_dot_blocked", "resolved_upstream_silent", "forwarder_upstream_silent"
DEGRADED, STUB_SILENT, IPC, NSCD = (
    "resolved_degraded",
    "resolved_stub_silent",
    "resolved_ipc_stall",
    "nscd_stall",
)
STUB, LOCAL = "127.0.0.53", "127.0.0.1"
RESOLVE, NSCD_PATH = "/run/systemd/resolve/io.systemd.Resolve", "/run/nscd/socket"


def hop(**fields: Any) -> Hop:
    """systemd-resolved, which is asked at its stub."""
    values: dict[str, Any] = {
        "role": "stub",
        "pid": 412,
        "asked_at": STUB,
        "name": "systemd-resolve",
        "process_state": "S",
        "dns_over_tls": "no",
    }
    return Hop(**(values | fields))


def dot(*, up: bool = False, **fields: Any) -> HopConnect:
    """A connection to port 853, whose SYN left right after our question."""
    values: dict[str, Any] = {
        "server": Server(ONE, 853),
        "is_up": up,
        "begun_ns": None if up else at(0.01),
        "state": "ESTABLISHED" if up else "SYN_SENT",
        "retransmits": 0 if up else 1,
    }
    return HopConnect(**(values | fields))


def strict(*connects: HopConnect, **fields: Any) -> Hop:
    """It must use TLS."""
    return hop(connects=connects, dns_over_tls="yes", **fields)


def asking(*queries: Query, **fields: Any) -> Hop:
    """It asks a server of its own for our name."""
    return hop(queries=queries or tuple(both(ONE, sent=0.002)), is_joined=True, **fields)


def dnsmasq(*queries: Query, **fields: Any) -> Hop:
    return asking(*queries, **{"name": "dnsmasq", "asked_at": LOCAL, "dns_over_tls": None, **fields})


def stub(*chain: Hop, age: float = 1.2, server: str = STUB, **more: Any) -> Situation:
    """A lookup whose questions wait for a local daemon; behind it is this chain."""
    more = {"resolv_conf": conf(server), "process": {"listeners": {}}, **more}
    return situation(both(server), age=age, chain=chain, **more)


def at_path(path: str, *chain: Hop, age: float = 1.2, **more: Any) -> Situation:
    """A lookup whose thread waits for a local socket."""
    return situation(age=age, chain=chain, thread=local_thread(path), **more)


SENT = {"bytes_sent": 700, "bytes_received": 4000, "sent_ago_ns": S, "received_ago_ns": S}


@rows(
    ("SYN sent again, strict", stub(strict(dot())), DOT, "confirmed"),
    ("too early", stub(strict(dot()), age=0.5), DOT, "likely"),
    ("SYN sent once so far", stub(strict(dot(retransmits=0))), DOT, "likely"),
    ("it is not known whether it is strict", stub(replace(strict(dot()), dns_over_tls=None)), DOT, "likely"),
    ("the hello has no answer", stub(strict(dot(up=True, hello_ns=at(0.02)))), DOT, "confirmed"),
    (
        "the hello was sent before it was followed",
        stub(strict(dot(up=True, bytes_sent=300, bytes_received=0, sent_ago_ns=S, is_silent=True))),
        DOT,
        "confirmed",
    ),
    ("the session is up and silent", stub(strict(dot(up=True, **SENT, is_silent=True))), DOT, "confirmed"),
    ("a session that is not silent", stub(strict(dot(up=True, **SENT))), STUB_SILENT, "likely"),
    ("over the local socket", at_path(RESOLVE, strict(dot(), asked_at=RESOLVE)), DOT, "confirmed"),
    ("the daemon is stopped", stub(strict(dot(), process_state="T")), STUB_SILENT, "likely"),
    ("nothing is open behind it", stub(strict()), STUB_SILENT, "likely"),
)
def test_dot(seen: Situation, expected: tuple[str, str]) -> None:
    """What keeps DNS over TLS from working is told from what does not concern it."""
    assert verdict(seen) == expected


def may_fall_back(*connects: HopConnect) -> Hop:
    """TLS is tried first, and not a must."""
    return hop(connects=connects, dns_over_tls="opportunistic")


@rows(
    ("SYN sent again", stub(may_fall_back(dot())), DEGRADED, "confirmed"),
    ("too early", stub(may_fall_back(dot()), age=0.5), DEGRADED, "likely"),
    (
        "it asks in the clear already",
        stub(replace(asking(), dns_over_tls="opportunistic")),
        UPSTREAM,
        "likely",
    ),
    ("nothing is open behind it", stub(may_fall_back()), STUB_SILENT, "likely"),
)
def test_degraded(seen: Situation, expected: tuple[str, str]) -> None:
    """That it loses its time with TLS first is told from that it must use TLS."""
    assert verdict(seen) == expected


@rows(
    ("its question waits", stub(asking()), UPSTREAM, "likely"),
    ("its question has timed out", stub(asking(), age=5.1), UPSTREAM, "confirmed"),
    ("it was sent again", stub(asking(ask(ONE, A, sent=0.002, resent=0.9))), UPSTREAM, "confirmed"),
    ("another one was given up before", stub(asking(past=(ask(ONE, A, sent=0.01),))), UPSTREAM, "confirmed"),
    (
        "an answer before did not suffice",
        stub(asking(past=(ask(ONE, A, sent=0.01, reply=0.02, rcode=2),)), age=5.1),
        UPSTREAM,
        "likely",
    ),
    ("not seen to be for our name", stub(replace(asking(), is_joined=False), age=5.1), UPSTREAM, "likely"),
    ("it asked just now", stub(asking(ask(ONE, A, sent=1.1))), STUB_SILENT, "likely"),
    (
        "TLS is tried, too, but our name is asked in the clear",
        stub(replace(asking(), connects=(dot(),))),
        UPSTREAM,
        "likely",
    ),
    (
        "over the local socket",
        at_path(RESOLVE, asking(asked_at=RESOLVE), age=5.1),
        UPSTREAM,
        "confirmed",
    ),
    ("an ended lookup is what it was", stub(asking(), age=5.1, status="failed"), UPSTREAM, "confirmed"),
)
def test_upstream(seen: Situation, expected: tuple[str, str]) -> None:
    """systemd-resolved that waits for its own server is not to blame."""
    assert verdict(seen) == expected


@rows(
    ("its question waits", stub(dnsmasq(), server=LOCAL), FORWARDER, "likely"),
    ("our own attempt has timed out", stub(dnsmasq(), server=LOCAL, age=5.1), FORWARDER, "confirmed"),
    ("it is stopped", stub(dnsmasq(process_state="T"), server=LOCAL), "ns_silent", "likely"),
    ("it waits for nothing", stub(hop(name="dnsmasq", asked_at=LOCAL), server=LOCAL), "ns_silent", "likely"),
    (
        "nscd that asks itself",
        at_path(NSCD_PATH, dnsmasq(asked_at=NSCD_PATH, name="nscd", role="daemon"), age=5.1),
        FORWARDER,
        "confirmed",
    ),
    (
        "it asks over TLS, at the stub's own address",
        stub(hop(name="stubby", dns_over_tls=None, connects=(dot(),))),
        FORWARDER,
        "likely",
    ),
    (
        "its TLS connection is quick enough",
        stub(hop(name="stubby", dns_over_tls=None, connects=(dot(up=True),))),
        STUB_SILENT,
        "likely",
    ),
    (
        "behind systemd-resolved",
        stub(asking(ask(LOCAL, A, sent=0.002)), dnsmasq(role="upstream"), age=5.1),
        FORWARDER,
        "confirmed",
    ),
)
def test_forwarder(seen: Situation, expected: tuple[str, str]) -> None:
    """The last daemon of the chain is the one whose server is silent."""
    assert verdict(seen) == expected


@pytest.mark.parametrize(("path", "cause"), [(RESOLVE, IPC), (NSCD_PATH, NSCD)])
def test_proof_that_the_daemon_is_stuck_comes_first(path: str, cause: str) -> None:
    """What was sent to a daemon and lies there unread is its own fault, whatever else it waits for."""
    seen = at_path(path, strict(dot(), asked_at=path))
    unread = {**(seen.thread or {}), "sockets": local_thread(path, rx_queue_bytes=9)["sockets"]}
    assert verdict(replace(seen, thread=unread)) == (cause, "confirmed")


def test_each_hop_is_evidence() -> None:
    """Who asks whom is told from the program on, each with its pid, and then what the last one waits for."""
    cause = judge(stub(asking(ask(LOCAL, A, sent=0.002)), dnsmasq(role="upstream", pid=99), age=5.1))
    assert cause is not None
    assert [fact.fact for fact in cause.evidence] == [
        *("no_reply", "hop_found", "hop_found", "upstream_no_reply")
    ]
    assert [fact.numbers.get("pid") for fact in cause.evidence] == [None, 412, 99, 99]
    assert "dnsmasq (process 99)" in cause.summary


def test_silence_is_counted_from_the_first_question() -> None:
    """A daemon that asks again by new questions has been waiting since the first of them."""
    past = (ask(ONE, A, sent=0.1), ask(ONE, AAAA, sent=0.1))
    cause = judge(stub(dnsmasq(ask(ONE, A, sent=1.5), past=past), server=LOCAL, age=2.1))
    assert cause is not None
    assert "for 2.0 s" in cause.summary
    assert next(fact for fact in cause.evidence if fact.fact == "upstream_no_reply").numbers["sent"] == 3


def test_what_a_forwarder_says_in_the_end_is_evidence() -> None:
    """SERVFAIL of a forwarder whose server has kept it waiting does not change the cause."""
    last = judge(stub(dnsmasq(), server=LOCAL, age=5.1))
    ended = stub(dnsmasq(), server=LOCAL, age=5.3, status="failed", code=-3)
    assert ended.lookup is not None
    answered = replace(ended.lookup, queries=tuple(both(LOCAL, reply=5.2, rcode=2)))
    cause = conclusion.at_the_end(replace(ended, lookup=answered), last)
    assert cause is not None
    assert cause.id == FORWARDER
    assert "rcode_error" in [fact.fact for fact in cause.evidence]


@pytest.mark.parametrize(("dnssec", "is_told"), [("yes", True), ("no", False), (None, False)])
def test_validation_is_told_of(dnssec: str | None, *, is_told: bool) -> None:
    """SERVFAIL of systemd-resolved may be its own where it must validate; the setting is evidence."""
    seen = situation(both(STUB, reply=0.002, rcode=2), age=0.01, status="failed", code=-3)
    cause = judge(replace(seen, stub_settings={"dnssec": dnssec}))
    assert cause is not None
    assert cause.id == "rcode_retry"
    assert ("dnssec_validated" in [fact.fact for fact in cause.evidence]) is is_told
    assert ("resolvectl query" in cause.remedy) is is_told


@pytest.mark.parametrize(("records", "is_unsigned"), [(1, True), (2, False)])
def test_an_answer_that_is_refused_is_evidence(records: int, *, is_unsigned: bool) -> None:
    """That systemd-resolved had an answer makes validation the likely reason; one record is not signed."""
    seen = situation(both(STUB, reply=0.02, rcode=2), age=0.02, status="failed", code=-3)
    own = replace(ask(ONE, A, sent=0.003, reply=0.004, rcode=0), answers=records)
    seen = replace(seen, chain=(hop(past=(own,), is_joined=True, dnssec="yes"),))
    cause = judge(replace(seen, stub_settings={"dnssec": "yes"}))
    assert cause is not None
    assert (cause.id, cause.confidence) == ("rcode_retry", "likely")
    (told,) = (fact for fact in cause.evidence if fact.fact == "upstream_answered")
    assert (told.numbers["server"], told.numbers["pid"], told.numbers["answers"]) == (ONE, 412, records)
    assert ("without a signature" in told.text) is is_unsigned
    assert "most likely does not pass its DNSSEC validation" in cause.summary
    without = judge(replace(seen, stub_settings={"dnssec": "no"}))
    assert without is not None
    assert "DNSSEC validation;" not in without.summary
    assert "most likely" not in without.summary
