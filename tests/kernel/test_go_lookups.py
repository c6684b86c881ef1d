"""Lookups of goroutines: by Go's own resolver and through cgo, from the call to its line.

The program's own account and the servers' logs are what the agent's lines are held against.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of
from gotool import NEWEST, OLDEST
from play import MISSED, Played, play
from program import Program

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.example.test"
VERSIONS = pytest.mark.parametrize("version", [OLDEST, NEWEST])
MANY = 1009


def played(fault: str, program: Path, way: str, *words: object, agent: tuple[object, ...] = ()) -> Played:
    argv = [program, "--name", NAME, "--way", way, *words]
    return play(FAULTS[fault], {"go": argv}, *agent)


def by_cgo(program: Path, *words: object) -> list[object]:
    """The program made to take libc's resolver: `env` becomes it."""
    return ["env", "GODEBUG=netdns=cgo", program, "--name", NAME, "--way", *words]


def asked(lookup: dict[str, Any]) -> list[tuple[Any, ...]]:
    return sorted((query["name"], query["type"], query["state"]) for query in lookup["queries"])


@VERSIONS
def test_a_silent_server_is_waited_for_by_a_goroutine(go_program: Callable[..., Path], version: str):
    """Which goroutine waits, for which name, server and attempt; at the end, the text that it was told."""
    seen = played("silent", go_program(version=version), "ip")
    stuck, end = seen.of("lookup_stuck", "go")[0], seen.only("lookup", "go")
    for line in (stuck, end):
        lookup = line["lookup"]
        assert (lookup["name"], lookup["api"], lookup["resolver"]) == (NAME, "go", "go")
        assert (lookup["goroutine"], "thread" in line) == ({"id": 1}, False)
        assert {query["server"]["address"] for query in lookup["queries"]} == {"192.0.2.53"}
    assert asked(stuck["lookup"]) == [(f"{NAME}.", "A", "waiting"), (f"{NAME}.", "AAAA", "waiting")]
    assert asked(end["lookup"]) == [(f"{NAME}.", "A", "timed_out"), (f"{NAME}.", "AAAA", "timed_out")]
    assert {query["id"] for query in end["lookup"]["queries"]} == {query["id"] for query in seen.asked}
    error = end["lookup"]["error"]
    assert (error["type"], error["code"]) == ("io_timeout", None)
    assert error["message"] == seen.results["go"]["error"]
    assert seen.stats["lookups"] == {
        "started": 1,
        "ok": 0,
        "failed": 1,
        "abandoned": 0,
        "stuck": 1,
        "in_flight": 0,
    }


def test_one_goroutine_asks_for_all_that_want_the_name(go_program: Callable[..., Path]):
    """Of three lookups of one name at once, one has the questions; the two that wait for it have none."""
    seen = played("silent", go_program(), "same", "--goroutines", 3)
    ends = seen.of("lookup", "go")
    assert sorted(len(line["lookup"]["queries"]) for line in ends) == [0, 0, 2]
    assert len({line["lookup"]["goroutine"]["id"] for line in ends}) == len(ends)
    assert {line["lookup"]["name"] for line in ends} == {NAME}
    assert seen.stats["lookups"]["started"] == len(ends)


@VERSIONS
@pytest.mark.parametrize(
    ("fault", "kind", "states"),
    [
        ("nxdomain", "no_such_host", ["answered", "answered"]),
        ("servfail", "server_misbehaving", ["answered", "answered"]),
        ("refused", "connection_refused", ["failed", "failed"]),
    ],
)
def test_go_says_why_it_failed(
    go_program: Callable[..., Path], version: str, fault: str, kind: str, states: list[str]
):
    """The error has a word that stays, and the text that the program can print."""
    seen = played(fault, go_program(version=version), "ip")
    lookup = seen.only("lookup", "go")["lookup"]
    assert (lookup["status"], lookup["error"]["type"]) == ("failed", kind)
    assert lookup["error"]["message"].endswith(seen.results["go"]["error"])
    assert [query["state"] for query in lookup["queries"]] == states


@VERSIONS
def test_a_truncated_answer_is_asked_for_by_tcp_in_one_lookup(go_program: Callable[..., Path], version: str):
    """Each question is there twice, by UDP and by TCP, with one id; the addresses are those that came."""
    seen = played("tcp", go_program(version=version), "ip", agent=("--all",))
    lookup = seen.only("lookup", "go")["lookup"]
    ways = sorted((query["type"], query["network"]["transport"]) for query in lookup["queries"])
    assert ways == [("A", "tcp"), ("A", "udp"), ("AAAA", "tcp"), ("AAAA", "udp")]
    assert len({query["id"] for query in lookup["queries"]}) == len({"A", "AAAA"})
    assert {query["attempt"] for query in lookup["queries"]} == {1}
    assert sorted(lookup["addresses"]) == sorted(seen.results["go"]["addresses"])


@pytest.mark.parametrize(
    ("way", "types"), [("txt", ["TXT"]), ("cname", ["A", "AAAA", "CNAME"]), ("host", ["A", "AAAA"])]
)
def test_other_ways_to_look_up_are_lookups_too(go_program: Callable[..., Path], way: str, types: list[str]):
    """One lookup of the name as it was given, with all that it asks, and nothing beside it."""
    seen = played("silent", go_program(), way)
    lookup = seen.only("lookup", "go")["lookup"]
    assert (lookup["name"], lookup["goroutine"]) == (NAME, {"id": 1})
    assert set(types) >= {query["type"] for query in lookup["queries"]} >= set(types[:2])
    assert seen.stats["lookups"]["started"] == 1


@VERSIONS
def test_healthy_lookups_are_counted_and_not_told(go_program: Callable[..., Path], version: str):
    """So many from so many goroutines, whose stacks grow: each is counted once, and no line is written."""
    words = ("--lookups", MANY, "--goroutines", 101, "--asked", 10, "--depth", 40)
    seen = played("healthy", go_program(version=version), "many", *words, agent=("--slow-after", "10s"))
    assert seen.results["go"]["lookups"] == MANY
    if MISSED not in seen.stats["lost"]:
        assert (seen.stats["lookups"]["started"], seen.stats["lookups"]["ok"]) == (MANY, MANY)
    assert {line["event"] for line in seen.lines} == {"target", "stats"}


@VERSIONS
def test_cgo_is_one_lookup_with_goroutine_and_thread(go_program: Callable[..., Path], version: str):
    """The goroutine's lookup and its getaddrinfo are one, in every line and in the counters."""
    seen = play(FAULTS["silent"], {"go": by_cgo(go_program(version=version, cgo=True), "ip")})
    stuck, end = seen.of("lookup_stuck", "go")[0], seen.only("lookup", "go")
    for line in (stuck, end):
        lookup = line["lookup"]
        assert (lookup["name"], lookup["api"], lookup["resolver"]) == (NAME, "cgo", "glibc")
        assert lookup["goroutine"] == {"id": 1}
        assert line["thread"]["id"] >= seen.pids["go"]
    assert asked(stuck["lookup"]) == [(f"{NAME}.", "A", "waiting"), (f"{NAME}.", "AAAA", "waiting")]
    assert stuck["lookup"]["waiting_on"]["syscall"] == "poll"
    assert (end["lookup"]["error"]["type"], seen.stats["lookups"]["started"]) == ("temporary_failure", 1)
    assert seen.stats["queries"] == {"sent": 2, "answered": 0, "unanswered": 2}


def test_what_c_does_for_a_caller_that_has_given_up_is_a_lookup_of_its_own(go_program: Callable[..., Path]):
    """The goroutine's ends with its deadline; getaddrinfo goes on, and ends with the process."""
    argv = by_cgo(go_program(cgo=True), "ip", "--within", "450ms")
    seen = play(FAULTS["silent"], {"go": argv})
    first, left = seen.of("lookup", "go")
    assert (first["lookup"]["api"], first["lookup"]["error"]["type"]) == ("cgo", "deadline_exceeded")
    assert (left["lookup"]["api"], left["lookup"]["status"]) == ("getaddrinfo", "abandoned")
    assert [query["id"] for query in left["lookup"]["queries"]] == [
        query["id"] for query in first["lookup"]["queries"]
    ]
    counted = {"started": 2, "ok": 0, "failed": 1, "abandoned": 1, "stuck": 1, "in_flight": 0}
    assert seen.stats["lookups"] == counted
    assert seen.stats["queries"] == {"sent": 2, "answered": 0, "unanswered": 2}


@pytest.mark.parametrize("way", ["cname", "addr"])
def test_other_calls_into_c_are_part_of_the_lookup_too(go_program: Callable[..., Path], way: str):
    """One is counted, whatever Go asks C for."""
    seen = play(FAULTS["healthy"], {"go": by_cgo(go_program(cgo=True), way)}, "--all")
    assert seen.stats["lookups"]["started"] == len(seen.of("lookup", "go")) == 1


def test_an_attempt_that_sends_nothing_to_a_dns_port_is_told(go_program: Callable[..., Path]):
    """A program's own Dial leads elsewhere: what Go's resolver tried is there all the same, and failed."""
    seen = played("healthy", go_program(), "custom", "--resolver", "127.0.0.9:5353")
    lookup = seen.only("lookup", "go")["lookup"]
    assert lookup["error"]["type"] == "connection_refused"
    assert asked(lookup) == [(f"{NAME}.", "A", "failed"), (f"{NAME}.", "AAAA", "failed")]
    assert {query["id"] for query in lookup["queries"]} == {None}


@pytest.mark.parametrize("way", ["ip", "same"])
def test_a_program_killed_in_its_lookups_ends_each_once(
    sandbox: Sandbox, go_program: Callable[..., Path], way: str
):
    """Whoever asks, and whoever waits for the one who asks, is told of as abandoned, by its name."""
    count = 3 if way == "same" else 1
    argv = [go_program(), "--name", NAME, "--way", way, "--goroutines", count]
    with FAULTS["silent"].setup(sandbox, options="timeout:30 attempts:1"):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms") as observer:
            program.go()
            observer.wait_for(lambda line: line["event"] == "lookup_stuck", count)
            program.process.kill()
            lines = observer.finish()
    ends = of(lines, "lookup")
    assert {line["lookup"]["status"] for line in ends} == {"abandoned"}
    assert [line["lookup"]["name"] for line in ends] == [NAME] * count
    assert len({line["lookup"]["id"] for line in ends}) == count
    counted = lines[-1]["stats"]["lookups"]
    assert (counted["started"], counted["abandoned"], counted["in_flight"]) == (count, count, 0)
