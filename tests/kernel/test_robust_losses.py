"""Losses on purpose: what finds no room is counted exactly, and told with a remedy."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

IMPATIENT = "timeout:1 attempts:1"
THREADS = 101
NAMES = {f"t{number}-0.lab.test" for number in range(THREADS)}


def told(lines: list[Line]) -> Counter[str]:
    """Where something was lost, and how much, from the `lost` lines: each with its remedy."""
    found: Counter[str] = Counter()
    for line in of(lines, "lost"):
        assert line["lost"]["remedy"]
        assert line["lost"]["count"] > 0
        found[line["lost"]["where"]] += line["lost"]["count"]
    return found


def trace(sandbox: Sandbox, argv: list[object], *words: object) -> tuple[dict[str, Any], list[Line]]:
    """What a program says of itself, and what the agent says of it."""
    program = Program(sandbox, argv)
    with Agent("attach", "--pid", program.pid, *words) as agent:
        program.go()
        return program.result(), agent.finish()


def test_frames_without_room_are_counted_one_by_one(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """With a ring of one page, lines and lost frames together are the lookups made; the counts miss none."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "192.0.2.10", "--numeric-host", "--threads", THREADS, "--count", 11]
    own, lines = trace(sandbox, argv, "--all", "--ring-pages", 1)
    total = THREADS * 11
    assert own["ok"] == total
    lost = told(lines)
    assert set(lost) == {"kernel_ring"}
    assert len(of(lines, "lookup")) + lost["kernel_ring"] == total
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["started"], counts["ok"], counts["in_flight"]) == (total, total, 0)


def test_lookups_with_questions_wait_for_room_in_the_ring(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """With a ring of one page none of 1,111 answered lookups is lost: each has its line, with answers."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--unique", "--threads", THREADS, "--count", 11]
    with FAULTS["healthy"].setup(sandbox, log=False):
        own, lines = trace(sandbox, argv, "--all", "--ring-pages", 1)
    total = THREADS * 11
    assert own["ok"] == total
    ended = of(lines, "lookup")
    names = {f"t{thread}-{number}.lab.test" for thread in range(THREADS) for number in range(11)}
    assert sorted(line["lookup"]["name"] for line in ended) == sorted(names)
    assert {len(line["lookup"]["queries"]) for line in ended} == {2}
    stats = lines[-1]["stats"]
    assert (stats["lookups"]["started"], stats["lookups"]["ok"]) == (total, total)
    assert stats["queries"] == {"sent": 2 * total, "answered": 2 * total, "unanswered": 0}
    assert stats["lost"] == {}


def test_a_lost_end_still_closes_what_was_told_as_stuck(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """101 stuck lookups end at once, with a ring of one page and 16 records: each ends, once."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--unique", "--threads", THREADS]
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT, log=False):
        small = ("--ring-pages", 1, "--max-lookups", 16)
        own, lines = trace(sandbox, argv, "--stuck-after", "250ms", *small)
    assert own["failed"] == THREADS
    ended = of(lines, "lookup")
    assert {line["lookup"]["name"] for line in ended} == NAMES
    assert len(ended) == THREADS
    without_end = [line for line in ended if line["lookup"].get("lost_end")]
    assert len(without_end) == told(lines)["kernel_ring"] > 0
    for line in without_end:
        assert line["lookup"]["status"] is None
        assert "error" not in line["lookup"]
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["failed"], counts["stuck"], counts["in_flight"]) == (THREADS, THREADS, 0)


def test_lookups_without_a_record_are_stuck_all_the_same(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """With room for 16 records, 101 stuck lookups are told and ended; those without say what was not seen."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--unique", "--threads", THREADS]
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT, log=False):
        own, lines = trace(sandbox, argv, "--stuck-after", "250ms", "--max-lookups", 16)
    assert own["failed"] == THREADS
    first = [line for line in of(lines, "lookup_stuck") if line["lookup"]["update"] == 1]
    assert sorted(line["lookup"]["name"] for line in first) == sorted(NAMES)
    seen = [line for line in first if line["lookup"]["queries"]]
    assert len(seen) == 16
    for line in first:
        if not line["lookup"]["queries"]:
            assert line["cause"]["id"] in {"agent_blind", "unknown"}, line["cause"]
    assert sorted(line["lookup"]["name"] for line in of(lines, "lookup")) == sorted(NAMES)
    lost = told(lines)
    assert set(lost) == {"kernel_map_lookups"}
    assert lost["kernel_map_lookups"] >= THREADS - 16
    stats = lines[-1]["stats"]
    assert (stats["lookups"]["started"], stats["lookups"]["failed"]) == (THREADS, THREADS)
    assert stats["queries"] == {"sent": 32, "answered": 0, "unanswered": 32}


def test_names_on_the_wire_without_room_are_counted(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """With room for 16, a stripped program's 101 names are 16 lookups and 85 lost, and the 16 end."""
    binary = of_this_machine(programs, "wire-musl-stripped")
    argv = [binary, "--count", THREADS, "--rate", 0, "--unique", "--timeout-ms", 500]
    with FAULTS["silent"].setup(sandbox, log=False):
        own, lines = trace(sandbox, argv, "--all", "--max-lookups", 16)
    assert own["sent"] == THREADS
    assert told(lines) == {"kernel_map_lookups": THREADS - 16}
    assert len({line["lookup"]["name"] for line in of(lines, "lookup")}) == len(of(lines, "lookup")) == 16
    stats = lines[-1]["stats"]
    assert (stats["lookups"]["started"], stats["lookups"]["in_flight"]) == (16, 0)
    assert stats["queries"] == {"sent": 16, "answered": 0, "unanswered": 16}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_threads_without_room_are_counted_call_by_call(
    sandbox: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """With room for eight threads, the calls that were seen and those lost together are the calls made."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    side_by_side = ("--threads", THREADS, "--count", 7, "--repeat-delay-us", 20_000)
    argv = [binary, "--name", "192.0.2.10", "--numeric-host", *side_by_side]
    own, lines = trace(sandbox, argv, "--max-calls", 8)
    assert own["ok"] == THREADS * 7
    counts = lines[-1]["stats"]["lookups"]
    lost = told(lines)
    assert set(lost) == {"kernel_map_calls"}
    assert counts["started"] + lost["kernel_map_calls"] == THREADS * 7
    assert counts["started"] == counts["ok"] >= 8 * 7


def test_what_no_thread_has_room_for_is_seen_on_the_wire(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """With room for eight threads, each of 101 stuck names is told, the others as `wire`, and all end."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--unique", "--threads", THREADS]
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT, log=False):
        own, lines = trace(sandbox, argv, "--stuck-after", "250ms", "--max-calls", 8)
    assert own["failed"] == THREADS
    ended = of(lines, "lookup")
    assert sorted(line["lookup"]["name"] for line in ended) == sorted(NAMES)
    assert Counter(line["lookup"]["api"] for line in ended) == {"getaddrinfo": 8, "wire": THREADS - 8}
    assert told(lines) == {"kernel_map_calls": THREADS - 8}
    assert lines[-1]["stats"]["queries"]["sent"] == 2 * THREADS


def test_a_loss_is_told_once_and_later_ones_again(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The `lost` lines add up to the totals of the last `stats`, each from where the one before ended."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--threads", 7, "--count", 13, "--repeat-delay-us", 200_000]
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--all", "--ring-pages", 1, "--max-calls", 2) as agent:
            program.go()
            program.result()
            lines = agent.finish()
    losses = of(lines, "lost")
    assert len(losses) > 1
    told_at: dict[str, str] = {}
    for line in losses:
        where = line["lost"]["where"]
        assert line["lost"]["since"] == told_at.get(where, lines[-1]["stats"]["since"])
        told_at[where] = line["ts"]
    assert dict(told(lines)) == lines[-1]["stats"]["lost"]
    assert lines[-1]["stats"]["lost"]["kernel_map_calls"] == 5 * 13
