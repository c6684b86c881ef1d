"""Counts are exact: whatever the number of threads, and whether or not a line was written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from play import play
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NEVER = ("--stuck-after", "60s", "--slow-after", "60s")  # however slow the machine is, this is healthy
HEALTHY = 10_007
SCRIPT = ({"suffix": "no.test", "rcode": 3}, {"suffix": "silent.test", "drop": True}, GOOD_ANSWER)
MIXED = Fault(
    name="mixed",
    sentence="Some names are there, some are not, some get no answer.",
    servers=(ServerPlan((topology.SERVER_1,), SCRIPT),),
)


def lookup(programs: dict[str, Path], libc: str, name: str, *words: object) -> list[object]:
    return [of_this_machine(programs, f"lookup-{libc}"), "--name", name, *words]


@pytest.mark.parametrize(
    ("libc", "threads", "count"),
    [("glibc", 1, HEALTHY), ("glibc", 257, 41), ("musl", 7, 1433)],
)
def test_healthy_lookups_are_counted_without_a_line(
    programs: dict[str, Path], libc: str, threads: int, count: int
) -> None:
    """Ten thousand healthy lookups leave no line, and a count that is right to the last one."""
    argv = lookup(programs, libc, "lab.test", "--threads", threads, "--count", count)
    told = play(FAULTS["healthy"], {"it": argv}, *NEVER, options="timeout:30", log=False)
    total = threads * count
    assert told.results["it"]["ok"] == total
    assert [line["event"] for line in told.lines] == ["target", "target", "stats"]
    expected = {"started": total, "ok": total, "failed": 0, "abandoned": 0, "stuck": 0, "in_flight": 0}
    assert told.stats["lookups"] == expected
    assert told.stats["queries"] == {"sent": 2 * total, "answered": 2 * total, "unanswered": 0}
    assert told.stats["latency_ms"]["lookup"]["count"] == total
    assert told.stats["latency_ms"]["query"]["count"] == 2 * total
    assert told.stats["lost"] == {}


def test_questions_on_the_wire_are_counted_exactly(programs: dict[str, Path]) -> None:
    """Of a static program each question counts once; a lookup counts as one, or as two."""
    argv = lookup(programs, "musl-stripped", "lab.test", "--threads", 7, "--count", 401, "--unique")
    told = play(FAULTS["healthy"], {"it": argv}, *NEVER, options="timeout:30", log=False)
    total = 7 * 401
    assert told.results["it"]["ok"] == total
    assert [line["event"] for line in told.lines] == ["target", "target", "stats"]
    assert told.stats["queries"] == {"sent": 2 * total, "answered": 2 * total, "unanswered": 0}
    # musl sends one after the other: when the first answer is quicker, the second question stands alone
    assert total <= told.stats["lookups"]["started"] == told.stats["lookups"]["ok"] < 2 * total
    assert told.stats["lost"] == {}


def test_a_mixed_run(programs: dict[str, Path]) -> None:
    """Under good names, missing names and silence at once, each kind is counted, and told as it should be."""
    argvs = {
        "good": lookup(programs, "glibc", "ok.test", "--threads", 7, "--count", 13),
        "missing": lookup(programs, "musl", "no.test", "--threads", 257, "--count", 3, "--unique"),
        "silent": lookup(programs, "glibc", "silent.test", "--threads", 11, "--unique"),
        "numeric": lookup(programs, "glibc", "192.0.2.1", "--numeric-host", "--threads", 3, "--count", 101),
    }
    # A lookup of a good name may be slow here, but not as slow as this.
    told = play(MIXED, argvs, "--stuck-after", "3s", "--slow-after", "3s", options="timeout:5 attempts:1")
    good, missing, silent, numeric = 7 * 13, 257 * 3, 11, 3 * 101
    assert [result["ok"] for result in told.results.values()] == [good, 0, 0, numeric]
    assert told.stats["lookups"] == {
        "started": good + missing + silent + numeric,
        "ok": good + numeric,
        "failed": missing + silent,
        "abandoned": 0,
        "stuck": silent,
        "in_flight": 0,
    }
    assert len(told.of("lookup", "missing")) == missing
    assert {line["lookup"]["name"] for line in told.of("lookup", "missing")} == {
        f"t{thread}-{number}.no.test" for thread in range(257) for number in range(3)
    }
    stuck = told.of("lookup_stuck", "silent")
    assert len({line["lookup"]["id"] for line in stuck}) == silent
    assert told.of("lookup", "good") == told.of("lookup", "numeric") == []


def test_lookups_side_by_side(programs: dict[str, Path]) -> None:
    """Threads that look up at the same time have each an id, a thread, a name and questions of their own."""
    argv = lookup(programs, "glibc", "lab.test", "--threads", 7, "--unique")
    told = play(FAULTS["silent"], {"it": argv})
    ended = told.of("lookup")
    assert {line["lookup"]["name"] for line in ended} == {f"t{thread}-0.lab.test" for thread in range(7)}
    for line in ended:
        assert {query["name"] for query in line["lookup"]["queries"]} == {line["lookup"]["name"] + "."}
        assert {query["type"] for query in line["lookup"]["queries"]} == {"A", "AAAA"}
    assert len({line["thread"]["id"] for line in ended}) == 7
    thread_of_id = {line["lookup"]["id"]: line["thread"]["id"] for line in ended}
    assert len(thread_of_id) == 7
    for line in told.of("lookup_stuck"):
        assert thread_of_id[line["lookup"]["id"]] == line["thread"]["id"]


def test_gethostbyname_one_after_the_other(programs: dict[str, Path]) -> None:
    """Of three gethostbyname at once one asks, the others wait for its lock: all three are stuck lookups."""
    argv = lookup(programs, "glibc", "lab.test", "--api", "gethostbyname", "--threads", 3, "--unique")
    told = play(FAULTS["silent"], {"it": argv})
    durations_ms = sorted(line["lookup"]["duration_ms"] for line in told.of("lookup"))
    assert [round(duration / 1000) for duration in durations_ms] == [1, 2, 3]
    first: dict[str, dict[str, Any]] = {}
    for line in told.of("lookup_stuck"):
        first.setdefault(line["lookup"]["id"], line["lookup"])
    assert len(first) == 3
    waits = sorted((len(one["queries"]), one["waiting_on"]["syscall"]) for one in first.values())
    assert waits == [(0, "futex"), (0, "futex"), (1, "poll")]


def test_one_after_the_other_in_one_thread(programs: dict[str, Path]) -> None:
    """Stuck lookups of one thread are told apart: each has its own id, start and end."""
    argv = lookup(programs, "glibc", "lab.test", "--threads", 1, "--count", 3, "--unique")
    told = play(FAULTS["silent"], {"it": argv})
    ended = [line["lookup"] for line in told.of("lookup")]
    assert [lookup["name"] for lookup in ended] == [f"t0-{number}.lab.test" for number in range(3)]
    assert len({lookup["id"] for lookup in ended}) == 3
    assert [lookup["started"] for lookup in ended] == sorted({lookup["started"] for lookup in ended})
    updates = [(line["lookup"]["name"][:4], line["lookup"]["update"]) for line in told.of("lookup_stuck")]
    assert updates == [(f"t0-{number}", update) for number in range(3) for update in (1, 2)]
