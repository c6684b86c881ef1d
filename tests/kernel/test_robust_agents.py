"""Agents side by side, and agents that end: nothing of one stays in the kernel, and no target notices."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

IMPATIENT = "timeout:1 attempts:1"
PATIENT = "timeout:3 attempts:1"
BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)
NEXT_ID = {"program": 11, "map": 12, "link": 31}
FD_BY_ID = {"program": 13, "map": 14, "link": 30}
OBJ_GET_INFO = 15
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, *words: int) -> tuple[int, tuple[int, ...]]:
    """The system call with 32-bit attributes: its result, and the attributes afterwards."""
    attributes = ctypes.create_string_buffer(struct.pack("=4I", *words, *(4 - len(words)) * [0]), 16)
    result = LIBC.syscall(BPF, command, attributes, 16)
    return result, struct.unpack("=4I", attributes.raw)


def ids(kind: str) -> set[int]:
    """Every BPF program, map or link in the kernel, by its id."""
    found: set[int] = set()
    last = 0
    while True:
        result, words = bpf(NEXT_ID[kind], last)
        if result != 0:
            return found
        last = words[1]
        found.add(last)


def in_kernel() -> dict[str, set[int]]:
    return {kind: ids(kind) for kind in NEXT_ID}


def made_by(agent: Agent) -> dict[str, set[int]]:
    """What a running agent holds, from its own descriptors."""
    words = {"prog_id": "program", "map_id": "map", "link_id": "link"}
    found: dict[str, set[int]] = {kind: set() for kind in NEXT_ID}
    for name in os.listdir(f"/proc/{agent.pid}/fdinfo"):  # noqa: PTH208
        with open(f"/proc/{agent.pid}/fdinfo/{name}", encoding="ascii") as file:  # noqa: PTH123
            entries = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
        kind = next((words[word] for word in words if word in entries and is_own(entries, word)), None)
        if kind is not None:
            found[kind].add(int(entries[next(word for word in words if words[word] == kind)]))
    return found


def is_own(entries: dict[str, str], word: str) -> bool:
    """A link's entry names its program too."""
    return not (word == "prog_id" and "link_id" in entries)


def wait_until_gone(kind: str, unwanted: set[int]) -> None:
    """The kernel lets go of programs and links a little after their descriptors."""
    while ids(kind) & unwanted:
        os.sched_yield()


def statuses(lines: list[Line]) -> Counter[str]:
    return Counter(line["lookup"]["status"] for line in of(lines, "lookup"))


def is_stuck(line: Line) -> bool:
    return bool(line["event"] == "lookup_stuck")


def has_exited(pid: int) -> Callable[[Line], bool]:
    """Whether a line tells the end of this process."""

    def fits(line: Line) -> bool:
        is_end = line["event"] == "target" and line["target"]["status"] == "exited"
        return is_end and bool(line["process"]["pid"] == pid)

    return fits


@pytest.mark.parametrize("name", ["lookup-glibc", "lookup-musl"])
def test_two_agents_on_one_target_both_see_everything(
    sandbox: Sandbox, programs: dict[str, Path], name: str
) -> None:
    """Attached twice at once, each of 101 lookups is told by both, with equal names, statuses and counts."""
    binary = of_this_machine(programs, name)
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, [binary, "--name", "lab.test", "--unique", "--count", 101])
        words = ("attach", "--pid", program.pid, "--all")
        with Agent(*words) as first, Agent(*words) as second:
            program.go()
            assert program.result()["ok"] == 101
            streams = [first.finish(), second.finish()]
    names = {f"t0-{number}.lab.test" for number in range(101)}
    for lines in streams:
        assert sorted(line["lookup"]["name"] for line in of(lines, "lookup")) == sorted(names)
        assert statuses(lines) == {"ok": 101}
        assert lines[-1]["stats"]["lookups"]["started"] == 101
        assert lines[-1]["stats"]["queries"] == {"sent": 202, "answered": 202, "unanswered": 0}
        assert lines[-1]["stats"]["lost"] == {}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_one_of_two_agents_killed_leaves_the_other_and_nothing_behind(
    sandbox: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """After kill -9 in mid lookup its programs, maps and links are gone; the other agent tells the end."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    with FAULTS["silent"].setup(sandbox, options=PATIENT, log=False):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--family", "inet"])
        words = ("attach", "--pid", program.pid, "--stuck-after", "250ms")
        with Agent(*words) as killed, Agent(*words) as other:
            theirs, others = made_by(killed), made_by(other)
            assert all(theirs.values())
            assert all(theirs[kind] <= ids(kind) for kind in theirs)
            program.go()
            killed.wait_for(is_stuck)
            other.wait_for(is_stuck)
            killed.process.send_signal(signal.SIGKILL)
            killed.process.wait()
            for kind in theirs:
                wait_until_gone(kind, theirs[kind])
            assert all(others[kind] <= ids(kind) for kind in others)
            assert program.result()["failed"] == 1
            lines = other.finish()
    assert statuses(lines) == {"failed": 1}
    assert only(lines, "lookup")["lookup"]["error"]["type"] == "EAI_AGAIN"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_the_agent_in_order(
    sandbox: Sandbox, programs: dict[str, Path], number: signal.Signals
) -> None:
    """Code 0, a `detached` line, the last stats with the lookup in flight, and nothing left in the kernel."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options=PATIENT, log=False):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--family", "inet"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            made = made_by(agent)
            program.go()
            agent.wait_for(is_stuck)
            lines = agent.stop(number)
            for kind in made:
                wait_until_gone(kind, made[kind])
        assert program.result()["failed"] == 1
    assert [line["target"]["status"] for line in of(lines, "target")] == ["attached", "detached"]
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["started"], counts["stuck"], counts["in_flight"]) == (1, 1, 1)
    assert of(lines, "lookup") == []


def test_an_agent_that_comes_after_a_killed_one_starts_afresh(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """Three agents killed as soon as they have started, on one target: the fourth counts exactly."""
    binary = of_this_machine(programs, "lookup-musl")
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, [binary, "--name", "lab.test", "--count", 101])
        before: set[int] = set()
        for _ in range(3):
            with Agent("attach", "--pid", program.pid) as agent:
                before |= made_by(agent)["program"]
                agent.process.kill()
                agent.process.wait()
        wait_until_gone("program", before)
        with Agent("attach", "--pid", program.pid, "--all") as agent:
            program.go()
            assert program.result()["ok"] == 101
            lines = agent.finish()
    assert statuses(lines) == {"ok": 101}
    assert lines[-1]["stats"]["queries"]["answered"] == 202


def test_a_target_in_mid_lookup_survives_the_kill_of_its_agent(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """101 threads in mid lookup when the agent is killed: each lookup ends as it would have without it."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["late_reply"].setup(sandbox, options="timeout:15 attempts:1", log=False):
        program = Program(sandbox, [binary, "--name", "lab.test", "--unique", "--threads", 101])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            program.go()
            agent.wait_for(is_stuck)
            agent.process.kill()
            agent.process.wait()
        own = program.result()
    assert own == {**own, "ok": 101, "failed": 0, "abandoned": 0}


def test_several_targets_each_keep_their_own(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A glibc, a musl and a stripped program: lines carry the right pid, one's end ends nothing else."""
    with FAULTS["healthy"].setup(sandbox, log=False):
        started = {
            name: Program(sandbox, [of_this_machine(programs, name), "--name", "lab.test", "--count", count])
            for name, count in (("lookup-glibc", 3), ("lookup-musl", 5), ("wire-musl-stripped", 7))
        }
        pids = {name: program.pid for name, program in started.items()}
        with Agent("attach", *(w for pid in pids.values() for w in ("--pid", pid)), "--all") as agent:
            for name, program in started.items():
                program.go()
                program.result()
                agent.wait_for(has_exited(pids[name]))
            lines = agent.finish()
    assert {name: len(of(lines, "lookup", pid)) for name, pid in pids.items()} == {
        "lookup-glibc": 3,
        "lookup-musl": 5,
        "wire-musl-stripped": 7,
    }
    coverage = {name: of(lines, "target", pid)[0]["target"]["coverage"] for name, pid in pids.items()}
    assert coverage["lookup-glibc"]["libc"].startswith("glibc")
    assert coverage["lookup-musl"]["libc"].startswith("musl")
    assert {name: bool(found["missing"]) for name, found in coverage.items()} == {
        name: name == "wire-musl-stripped" for name in pids
    }
    assert lines[-1]["stats"]["lookups"]["ok"] == 15


def test_nothing_is_left_after_an_ordinary_end(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """When its last target has exited the agent ends with 0, and its programs, maps and links are gone."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, [binary, "--name", "lab.test"])
        with Agent("attach", "--pid", program.pid, "--children") as agent:
            made = made_by(agent)
            assert {kind: bool(numbers) for kind, numbers in made.items()} == dict.fromkeys(made, True)
            program.go()
            program.result()
            agent.finish()
            for kind in made:
                wait_until_gone(kind, made[kind])
