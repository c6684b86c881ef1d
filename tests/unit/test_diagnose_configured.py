"""Causes that the configuration tells: no server, an old file, servers of one's own, and search lists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from situations import (
    EAI_AGAIN,
    ECONNREFUSED,
    NAME,
    ONE,
    TWO,
    S,
    both,
    conf,
    connecting,
    musl,
    rows,
    situation,
    thread,
    udp,
    verdict,
)

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Server

if TYPE_CHECKING:
    from ebpfdns.model.facts import Query, Situation

HOME, OTHER_LOOPBACK = "127.0.0.1", "127.0.0.53"
WALL_NS = 1_767_225_600 * S
STARTED_NS = WALL_NS - 3600 * S
CONFIRMED_EMPTY = ("no_nameserver", "confirmed")


def nothing(**more: Any) -> dict[str, Any]:
    """A resolv.conf that names nobody."""
    return conf() | {"path": "/etc/resolv.conf", "target": None, "size_bytes": 0} | more


def changed(*servers: str, before_s: float = 60.0, **more: Any) -> dict[str, Any]:
    """A resolv.conf that was changed so long before the lookup began."""
    return conf(*servers) | {"mtime_wall_ns": round(WALL_NS - before_s * S), "replaced": False} | more


def refused(server: str = HOME) -> list[Query]:
    """Both questions, refused at once."""
    return both(server, error=ECONNREFUSED)


def over(queries: list[Query], **more: Any) -> Situation:
    """A lookup that failed at once."""
    return situation(queries, **{"age": 0.01, **EAI_AGAIN, **more})


def known(queries: list[Query], *, age: float = 2.0, **more: Any) -> Situation:
    """A lookup of a process whose start is known."""
    times = {"now_wall_ns": WALL_NS + round(age * S), "process_started_wall_ns": STARTED_NS}
    return situation(queries, age=age, **(times | more))


def wire(queries: list[Query], **more: Any) -> Situation:
    """The same, known from packets only."""
    defaults = {"api": "wire", "resolver": "unknown", "thread": thread(udp(TWO)), "comm": b"dig"}
    return known(queries, **(defaults | more))


@rows(
    ("empty", over(refused(), resolv_conf=nothing()), *CONFIRMED_EMPTY),
    ("not there", over(refused(), resolv_conf=nothing(present=False)), *CONFIRMED_EMPTY),
    ("of a program that asks [::1]", over(refused("::1"), resolv_conf=nothing()), *CONFIRMED_EMPTY),
    ("to musl, which hears nothing", musl(both(HOME), age=2.0, resolv_conf=nothing()), *CONFIRMED_EMPTY),
    (
        "something listens, and is silent",
        situation(both(HOME), age=2.0, resolv_conf=nothing(), thread=thread(udp(HOME))),
        "ns_silent",
        "likely",
    ),
    (
        "something listens to musl",
        musl(
            both(HOME),
            age=2.0,
            resolv_conf=nothing(),
            process={"listeners": {HOME: {"listening": True, "owner": None}}},
        ),
        "ns_silent",
        "likely",
    ),
    (
        "it answers, all is well",
        situation(both(HOME, reply=0.01), status="ok", age=0.02, resolv_conf=nothing()),
        None,
        None,
    ),
    ("the file names it", over(refused(), resolv_conf=conf(HOME)), "ns_refused", "confirmed"),
    (
        "another address is asked",
        over(refused(OTHER_LOOPBACK), resolv_conf=nothing()),
        "ns_refused",
        "confirmed",
    ),
    ("the file was not looked at", over(refused(), resolv_conf=None), "ns_refused", "confirmed"),
    ("it may not be read", over(refused(), resolv_conf=nothing(present=None)), "ns_refused", "confirmed"),
    (
        "something was lost",
        over(refused(), resolv_conf=nothing(), lost={"kernel_ring": 1}),
        "no_nameserver",
        "likely",
    ),
)
def test_no_nameserver(seen: Situation, expected: tuple[str, str]) -> None:
    """It is said where the file names nobody and whoever is asked by default is not there; and only then."""
    assert verdict(seen) == expected


def test_a_refusal_is_the_evidence_of_an_empty_file() -> None:
    """What was found first is told beside the reason; a link that leads nowhere is named with its target."""
    cause = judge(over(refused(), resolv_conf=nothing(present=False, target="/run/stub-resolv.conf")))
    assert cause is not None
    assert [told.fact for told in cause.evidence][:2] == ["resolv_conf_empty", "socket_error"]
    assert "/etc/resolv.conf -> /run/stub-resolv.conf is a link that leads nowhere" in cause.summary


STALE = ("stale_resolv_conf", "confirmed")


@rows(
    ("an old server, silent", known(both(), resolv_conf=changed(TWO)), *STALE),
    ("an old server, refused", known(refused(ONE), resolv_conf=changed(TWO)), *STALE),
    (
        "the caller may have named it",
        known(both(), resolv_conf=changed(TWO), api="res_nquery"),
        "ns_silent",
        "confirmed",
    ),
    (
        "the file changed during the lookup",
        known(both(), resolv_conf=changed(TWO, before_s=-1.0)),
        "ns_silent",
        "confirmed",
    ),
    (
        "the file is older than the process",
        known(both(), resolv_conf=changed(TWO, before_s=7200)),
        "ns_silent",
        "confirmed",
    ),
    ("the file names it", known(both(), resolv_conf=changed(ONE, TWO)), "ns_silent", "likely"),
    ("the times are not known", situation(both(), age=2.0, resolv_conf=conf(TWO)), "ns_silent", "likely"),
    ("the file is empty", known(both(), resolv_conf=changed()), "ns_silent", "likely"),
    (
        "the mounted file is an old one",
        known(both(), resolv_conf=changed(ONE, replaced=True)),
        "ns_silent",
        "confirmed",
    ),
    ("a resolver of its own", wire(both(), resolv_conf=changed(TWO)), "ns_silent", "likely"),
)
def test_stale_resolv_conf(seen: Situation, expected: tuple[str, str]) -> None:
    """It is sure where libc chose a server that the file dropped after the start and before the lookup."""
    found = verdict(seen)
    if expected[0] == "stale_resolv_conf":
        assert found == expected
    else:
        assert found[0] == expected[0]


@pytest.mark.parametrize(
    ("seen", "fact"),
    [
        (known(both(), resolv_conf=changed(TWO), api="res_nquery"), "server_not_in_resolv_conf"),
        (known(both(), resolv_conf=changed(ONE, replaced=True)), "resolv_conf_changed"),
        (wire(both(TWO), resolv_conf=changed(ONE, before_s=60)), "server_not_in_resolv_conf"),
    ],
)
def test_what_is_not_sure_is_told_beside(seen: Situation, fact: str) -> None:
    """A reason that cannot be proven stands in the evidence of what was found."""
    cause = judge(seen)
    assert cause is not None
    assert cause.id == "ns_silent"
    assert fact in [told.fact for told in cause.evidence]


BYPASS = ("bypass", "confirmed")


@rows(
    ("its own server", wire(both(TWO), resolv_conf=changed(ONE, before_s=7200)), *BYPASS),
    ("by libc", known(both(TWO), resolv_conf=changed(ONE, before_s=7200)), "ns_silent", "likely"),
    ("the file names it", wire(both(ONE), resolv_conf=changed(ONE, before_s=7200)), "ns_silent", "confirmed"),
    (
        "one of two is the file's",
        wire([*both(ONE), *both(TWO)], resolv_conf=changed(ONE, before_s=7200)),
        "ns_silent",
        "likely",
    ),
    (
        "a resolver by trade",
        wire(both(TWO), resolv_conf=changed(ONE, before_s=7200), comm=b"dnsmasq"),
        "ns_silent",
        "confirmed",
    ),
    (
        "it answers",
        wire(both(TWO, reply=0.02), age=0.03, status="ok", resolv_conf=changed(ONE, before_s=7200)),
        None,
        None,
    ),
)
def test_bypass(seen: Situation, expected: tuple[str, str]) -> None:
    """It is said of questions that no call explains, to silent servers that the file never named."""
    found = verdict(seen)
    assert found[0] == expected[0]
    if expected[0] == "bypass":
        assert found == expected


@rows(
    ("a second", connecting(server=Server("1.1.1.1", 443), lookup_key=None), "bypass", "likely"),
    ("younger", connecting(server=Server("1.1.1.1", 443), lookup_key=None, age=0.5), "bypass", "possible"),
)
def test_dns_over_https(seen: Situation, expected: tuple[str, str]) -> None:
    """A connection that hangs to a known server of DNS over HTTPS is told as what it is for."""
    assert verdict(seen) == expected


@pytest.mark.parametrize(
    "seen",
    [
        connecting(server=Server("1.1.1.1", 443)),  # a lookup gave the address
        connecting(server=Server("1.1.1.1", 80), lookup_key=None),
        connecting(server=Server("192.0.2.10", 443), lookup_key=None),
        connecting(server=Server("1.1.1.1", 443), lookup_key=None, in_lookup=True, port=443),
    ],
)
def test_other_connections_bypass_nothing(seen: Situation) -> None:
    """Another port, an unknown address, or one that a lookup gave."""
    assert verdict(seen)[0] != "bypass"


SEARCH = ("a.test", "b.test", "c.test")


def step(suffix: str, begins: float, took: float | None, rcode: int = 3) -> list[Query]:
    """Both questions for the name with a suffix."""
    name = NAME + (b"." + suffix.encode() if suffix else b"") + b"."
    reply = None if took is None else begins + took
    answers = 0 if rcode else 1
    return both(
        ONE, sent=begins, reply=reply, rcode=rcode, name=name, answers=None if took is None else answers
    )


def searching(*steps: list[Query], search: tuple[str, ...] | None = SEARCH, **more: Any) -> Situation:
    """A lookup with these steps, under this search list."""
    listed = conf(ONE, options=["ndots:5"]) | {"search": list(search or ())}
    return situation(
        [query for queries in steps for query in queries],
        **({"resolv_conf": listed if search else None} | more),
    )


def numbered(*times: float) -> list[list[Query]]:
    """Steps one after the other that took so long, without a result."""
    begins, found = 0.001, []
    for suffix, took in zip(SEARCH, times, strict=False):
        found.append(step(suffix, begins, took))
        begins += took + 0.001
    return found


@rows(
    ("three suffixes", searching(*numbered(0.4, 0.4, 0.4), age=1.21), "search_amplification", "confirmed"),
    (
        "the last one answered",
        searching(*numbered(0.4, 0.4, 0.4), step("", 1.21, 0.4, 0), age=1.62, status="ok"),
        "search_amplification",
        "confirmed",
    ),
    (
        "the last one waits",
        searching(*numbered(0.4, 0.4), step("c.test", 0.81, None), age=1.0),
        "search_amplification",
        "confirmed",
    ),
    (
        "the list is not known",
        searching(*numbered(0.4, 0.4, 0.4), search=None, age=1.21),
        "search_amplification",
        "likely",
    ),
    (
        "another list",
        searching(*numbered(0.4, 0.4, 0.4), search=("d.test",), age=1.21),
        "search_amplification",
        "likely",
    ),
    (
        "more than are kept",
        searching(*numbered(0.4, 0.4, 0.4), age=3.0, more_queries=6),
        "search_amplification",
        "confirmed",
    ),
)
def test_search_amplification(seen: Situation, expected: tuple[str, str]) -> None:
    """Three names or more, most of them useless, that together are the time it took."""
    assert verdict(seen) == expected


@pytest.mark.parametrize(
    "seen",
    [
        searching(*numbered(0.4, 0.4), age=0.81),  # two names
        searching(*numbered(0.01, 0.01, 2.0), age=2.03),  # one step is the time
        searching(*numbered(0.01, 0.01), step("c.test", 0.03, None), age=3.0),  # one step hangs
        searching(*numbered(0.01, 0.01, 0.01), age=2.0),  # the time passed elsewhere
        searching(*numbered(0.01, 0.01, 0.01), age=0.04, status="failed", code=-2),  # at once
        searching(
            step("a.test", 0.001, 0.4, 2), step("b.test", 0.41, 0.4, 2), step("c.test", 0.82, 0.4, 2), age=1.3
        ),
        searching(*numbered(0.4, 0.4, 0.4), age=1.21, name=b"other.test"),
        searching(*numbered(0.4, 0.4, 0.4), age=1.21, api="wire", resolver="unknown"),
    ],
)
def test_a_search_that_is_not_the_cause(seen: Situation) -> None:
    """Two names, a step that hangs, errors, or time that passed elsewhere: other causes, or none."""
    assert verdict(seen)[0] != "search_amplification"


def test_the_steps_are_told() -> None:
    """Each name with its answer and time, and the search list that made them."""
    cause = judge(searching(*numbered(0.4, 0.4, 0.4), age=1.21))
    assert cause is not None
    assert [told.fact for told in cause.evidence] == ["search_step"] * 3 + ["ndots_search"]
    assert cause.evidence[0].numbers["name"] == "www.lab.test.a.test"
    assert cause.evidence[0].numbers["took_ms"] == 400.0
    assert cause.evidence[3].numbers["option"] == "ndots:5"


def test_a_step_that_hangs_is_the_cause() -> None:
    """When earlier names were answered at once, and the last one is not, the silence is that step's."""
    cause = judge(searching(*numbered(0.01, 0.01), step("c.test", 0.03, None), age=3.0))
    assert cause is not None
    assert (cause.id, cause.confidence) == ("ns_silent", "likely")
    assert cause.evidence[-1].fact == "search_step"
    assert "www.lab.test.c.test" in cause.evidence[-1].text


def test_the_step_that_hangs_need_not_be_the_last() -> None:
    """When it is given up, the name as it is comes next: that it is answered at once changes nothing."""
    hangs, then = step("c.test", 0.03, None), step("", 1.04, 0.01)
    cause = judge(searching(*numbered(0.01, 0.01), hangs, then, age=1.06, **EAI_AGAIN))
    assert cause is not None
    assert (cause.id, cause.confidence) == ("ns_silent", "likely")
    assert "www.lab.test.c.test" in cause.evidence[-1].text
