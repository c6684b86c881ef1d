"""Which ways there are to ask for a name, and what the answers by all of them say together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.explain import comparison
from ebpfdns.explain.ways import Way, ways
from ebpfdns.publish.schema import inspection_comparison

STUB, UPLINK = "127.0.0.53", "192.0.2.53"
WORDS = sorted(inspection_comparison.OUTCOMES)


def answer(server: str, way: str, outcome: str, role: str = "nameserver") -> dict[str, Any]:
    """One row: `way` is udp, edns, tcp or dot."""
    transport = "udp" if way == "edns" else way
    rcode = {"answered": "NOERROR", "no_such_name": "NXDOMAIN", "error_code": "SERVFAIL"}.get(outcome)
    rules = server if role == "rules" else None
    edns = way in ("edns", "dot")
    found = {"role": role, "rules": rules, "server": server, "transport": transport, "edns": edns}
    return found | {"outcome": outcome, "rcode": rcode}


def rows(server: str, role: str = "nameserver", **outcomes: str) -> list[dict[str, Any]]:
    """Several of one server; what is not named answers."""
    kinds = ("udp", "edns", "tcp", "dot") if role == "uplink" else ("udp", "edns", "tcp")
    return [answer(server, kind, outcomes.get(kind, "answered"), role) for kind in kinds]


SILENT = dict.fromkeys(("udp", "edns", "tcp"), "timed_out")
CASES = {
    "all is well": ([*rows(STUB), *rows(UPLINK, "uplink")], ["all_answer"]),
    "the stub is silent, its upstream is not": (
        [*rows(STUB, **SILENT), *rows(UPLINK, "uplink")],
        ["stub_is_broken", "server_is_dead"],
    ),
    "the same, for TLS is blocked": (
        [*rows(STUB, **SILENT), *rows(UPLINK, "uplink", dot="timed_out")],
        ["stub_is_broken", "dot_is_blocked", "server_is_dead"],
    ),
    "TLS is blocked and nobody minds": (
        [*rows(STUB), *rows(UPLINK, "uplink", dot="refused")],
        ["dot_is_blocked"],
    ),
    "EDNS0 is dropped": (rows(UPLINK, edns="timed_out"), ["edns_is_dropped"]),
    "TCP is blocked": (rows(UPLINK, tcp="timed_out"), ["tcp_is_blocked"]),
    "one of two is dead": (
        [*rows("192.0.2.9", **SILENT), *rows(UPLINK)],
        ["server_is_dead"],
    ),
    "everybody is silent": (rows(UPLINK, **SILENT), ["none_answers"]),
    "an error from all": (
        rows(UPLINK, **dict.fromkeys(("udp", "edns", "tcp"), "error_code")),
        ["server_says_error"],
    ),
    "they do not agree": (
        [*rows(STUB, **dict.fromkeys(("udp", "edns", "tcp"), "no_such_name")), *rows(UPLINK)],
        ["answers_differ"],
    ),
    "Go alone finds it": (
        [answer("libc", "udp", "timed_out", "rules"), answer("go", "edns", "answered", "rules")],
        ["only_go_works"],
    ),
    "libc alone finds it": (
        [answer("libc", "udp", "answered", "rules"), answer("go", "edns", "timed_out", "rules")],
        ["only_libc_works"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_answers_say(case: str) -> None:
    """Each picture has its conclusions and no others, the most telling one first."""
    answers, expected = CASES[case]
    assert [one.id for one in comparison.conclusions(answers)] == expected


def test_every_conclusion_is_in_the_schema_and_is_drawn_once() -> None:
    """No conclusion that no case reaches, but the one for what fits nothing."""
    reached = {name for _, expected in CASES.values() for name in expected} | {"some_answer"}
    assert reached == set(inspection_comparison.CONCLUSIONS)


@given(st.lists(st.tuples(st.sampled_from([STUB, UPLINK]), st.sampled_from(["udp", "edns", "tcp"]),
       st.sampled_from(WORDS)), min_size=1, max_size=8))  # fmt: skip
def test_something_is_always_said(found: list[tuple[str, str, str]]) -> None:
    """Whatever came back, there is a conclusion, and each is one that the schema knows."""
    said = comparison.conclusions([answer(*one) for one in found])
    assert said
    assert {one.id for one in said} <= set(inspection_comparison.CONCLUSIONS)


def test_ways_to_a_stub_and_behind_it() -> None:
    """The stub is asked in three ways, its upstream in four, and both resolvers' rules are followed."""
    conf = {"nameservers": [STUB], "search": ["lab.test"], "options": ["ndots:2"]}
    found = ways("a.test", conf, [UPLINK, STUB])
    assert [(way.role, way.rules, way.servers, way.transport, way.has_edns) for way in found] == [
        ("rules", "libc", (STUB,), "udp", False),
        ("rules", "go", (STUB,), "udp", True),
        ("nameserver", None, (STUB,), "udp", False),
        ("nameserver", None, (STUB,), "udp", True),
        ("nameserver", None, (STUB,), "tcp", False),
        ("uplink", None, (UPLINK,), "udp", False),
        ("uplink", None, (UPLINK,), "udp", True),
        ("uplink", None, (UPLINK,), "tcp", False),
        ("uplink", None, (UPLINK,), "dot", True),
    ]
    assert found[0].names == ("a.test.lab.test", "a.test")
    assert {way.names for way in found[2:]} == {("a.test.",)}
    assert [way.port for way in found[-2:]] == [53, 853]


def test_without_a_nameserver_the_local_host_is_asked() -> None:
    """As libcs do."""
    assert {way.servers for way in ways("a.", {}, [])} == {("127.0.0.1",)}


def test_of_many_servers_three_are_asked() -> None:
    """As libcs do."""
    conf = {"nameservers": [f"192.0.2.{number}" for number in range(1, 6)]}
    asked: list[Way] = ways("a.test", conf, [])
    assert len({way.servers for way in asked if way.role == "nameserver"}) == 3
