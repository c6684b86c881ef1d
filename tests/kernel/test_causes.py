"""Causes on real lookups: the right one, as sure as the facts allow, and none of its neighbours.

Each story (`stories`) is played by the libc it is about. What a rule says of each situation is tested
without a kernel (tests/unit/test_diagnose_*); here the facts are the kernel's.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from play import Played, outcome, play
from program import of_this_machine
from stories import DEAD, NO_ROUTE, ONE, STORIES, TWO, Story, Verdict

from ebpfdns.lab import topology
from ebpfdns.lab.behind_faults import BEHIND_FAULTS
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.local_faults import LOCAL_FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

AT_ONCE = 2
NAME = "www.lab.test"


@pytest.fixture(scope="module")
def played(programs: dict[str, Path]) -> Iterator[dict[str, Future[Played]]]:
    def start(story: Story) -> Played:
        argv = [programs[f"lookup-{story.libc}"], "--api", story.api, "--name", NAME]
        return play(story.fault, {"it": argv}, "--all", options=story.options)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            name: pool.submit(start, story)
            for name, story in STORIES.items()
            if f"lookup-{story.libc}" in programs
        }


@pytest.fixture
def told(played: dict[str, Future[Played]], programs: dict[str, Path], name: str) -> Played:
    of_this_machine(programs, f"lookup-{STORIES[name].libc}")
    return outcome(played[name])


every_story = pytest.mark.parametrize("name", STORIES)


def verdict(line: dict[str, Any]) -> Verdict | None:
    found = line.get("cause")
    return found and (found["id"], found["confidence"])


@every_story
def test_cause_at_the_end(told: Played, name: str) -> None:
    """The last line has the cause that the story is about, so sure, resting on these facts; or none."""
    line = told.only("lookup")
    assert verdict(line) == STORIES[name].end
    facts = [fact["fact"] for fact in line.get("cause", {}).get("evidence", [])]
    assert tuple(facts) == STORIES[name].facts


@every_story
def test_cause_while_it_lasts(told: Played, name: str) -> None:
    """While it lasts each line says what can be known by then, and nothing that only time will tell."""
    lines = told.of("lookup_stuck")
    expected = STORIES[name].stuck
    assert tuple(verdict(line) for line in lines)[: len(expected)] == expected
    assert len(lines) - len(expected) in {0, 1}  # one more when the machine is slow
    for line in lines:
        assert line["cause"]["summary"] in line["message"]


@every_story
def test_evidence_has_its_numbers(told: Played, name: str) -> None:
    """Each sentence of evidence has the numbers it rests on, and they agree with the lookup's own."""
    servers = {ONE, TWO, DEAD, NO_ROUTE, topology.SERVER_1_V6, "127.0.0.1"}
    for line in [*told.of("lookup_stuck"), *told.of("lookup")]:
        lookup = line["lookup"]
        age_ms = lookup.get("elapsed_ms") or lookup["duration_ms"]
        for fact in line.get("cause", {}).get("evidence", []):
            assert fact["text"], name
            assert fact.get("server") in {None, *servers}
            for number in ("waited_ms", "reply_ms", "elapsed_ms", "asked_after_ms"):
                assert 0 <= fact.get(number, 0) <= age_ms + 1


#: Told in test_causes_beyond_servers and test_causes_behind.
ELSEWHERE = {"tcp53_blocked", "tcp53_silent"} | {fault.name for fault in BEHIND_FAULTS}


def test_every_lab_fault_has_a_story() -> None:
    """Each fault of servers that has a cause of lookups is told here, and ends with that cause."""
    told = {(story.fault.name, story.end[0]) for story in STORIES.values() if story.end}
    of_servers = [
        fault
        for fault in FAULTS.values()
        if fault not in LOCAL_FAULTS and not fault.connect_port and fault.program == ("target",)
    ]
    of_servers = [fault for fault in of_servers if fault.name not in ELSEWHERE]
    expected = {(fault.name, fault.expected_cause) for fault in of_servers}
    assert {pair for pair in expected if pair[1]} <= told
