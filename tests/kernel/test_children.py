"""--children: what a target forks and starts is traced from its first instruction, and counted exactly."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import DEADLINE_S, UNTIL_GO, Program, of_this_machine, shell

from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe import processes

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

IMPATIENT = "timeout:1 attempts:1"
PATIENT = "timeout:30 attempts:1"


def trace(program: Program, *words: object) -> list[Line]:
    """The lines about it and its children, until the last of them has ended."""
    with Agent("attach", "--pid", program.pid, "--children", *words) as agent:
        program.go()
        program.process.communicate(timeout=DEADLINE_S)
        assert program.process.returncode == 0
        return agent.finish()


def names(lines: list[Line]) -> Counter[str]:
    return Counter(line["lookup"]["name"] for line in of(lines, "lookup"))


def executables(lines: list[Line], event: str) -> set[str]:
    return {line["process"]["executable"]["name"] for line in of(lines, event)}


def check_targets(lines: list[Line]) -> None:
    """Each process that was attached has exited, once."""
    assert sorted(pids(lines, "exited")) == sorted(set(pids(lines, "attached")))


def pids(lines: list[Line], status: str) -> list[int]:
    """Of the `target` lines with this status, in order."""
    return [line["process"]["pid"] for line in of(lines, "target") if line["target"]["status"] == status]


def questions(lines: list[Line]) -> Counter[tuple[str, str]]:
    """How often each question was asked, and answered."""
    asked = [query for line in of(lines, "lookup") for query in line["lookup"]["queries"]]
    assert {query["state"] for query in asked} == {"answered"}
    return Counter((query["name"], query["type"]) for query in asked)


@pytest.mark.parametrize("name", ["lookup-glibc", "lookup-musl", "lookup-musl-static"])
def test_a_command_of_a_shell_is_followed(sandbox: Sandbox, programs: dict[str, Path], name: str) -> None:
    """Forked and started by sh, whatever its libc: each of 101 names is told, by the child's pid and name."""
    binary = of_this_machine(programs, name)
    with FAULTS["healthy"].setup(sandbox, log=False):
        command = f"{binary} --name lab.test --unique --threads 0 --count 101 --repeat-delay-us 2000"
        program = shell(sandbox, f"{command}; true")
        lines = trace(program, "--all")
    asked = [f"t0-{number}.lab.test" for number in range(101)]
    assert questions(lines) == {(f"{name}.", kind): 1 for name in asked for kind in ("A", "AAAA")}
    assert executables(lines, "lookup") == {name}
    assert program.pid not in {line["process"]["pid"] for line in of(lines, "lookup")}
    assert {line["lookup"]["status"] for line in of(lines, "lookup")} == {"ok"}
    # Until its library is found, its packets tell; then A and AAAA are two where they follow each other.
    calls = [line["lookup"] for line in of(lines, "lookup") if line["lookup"]["api"] == "getaddrinfo"]
    by_call = [call["name"] for call in calls]
    assert by_call == asked[-len(by_call) :]
    assert len(by_call) >= 50
    assert set(names(lines)) == set(asked)
    counts = lines[-1]["stats"]["lookups"]
    assert counts["started"] == counts["ok"] == len(of(lines, "lookup"))
    assert lines[-1]["stats"]["lost"] == {}
    check_targets(lines)


def test_a_child_with_its_parents_libc_is_seen_from_its_first_call(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """Where sh has mapped the same libc, the very first lookup of a new program is known by its call."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["healthy"].setup(sandbox, log=False):
        lines = trace(shell(sandbox, f"for i in 1 2 3 4 5 6 7; do {binary} --name lab.test; done"), "--all")
    assert [line["lookup"]["api"] for line in of(lines, "lookup")] == ["getaddrinfo"] * 7
    assert len({line["process"]["pid"] for line in of(lines, "lookup")}) == 7
    assert lines[-1]["stats"]["lookups"]["ok"] == 7


def test_children_of_children_side_by_side_are_counted_exactly(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """23 grandchildren at once, of three kinds, each asks five times: all seen, under their own pids."""
    built = ("lookup-glibc", "lookup-musl", "wire-musl-stripped")
    kinds = [of_this_machine(programs, name) for name in built]
    jobs = [f"{kinds[number % 3]} --name j{number}.lab.test --count 5" for number in range(23)]
    inner = " & ".join(f"({job})" for job in jobs)
    with FAULTS["healthy"].setup(sandbox, log=False):
        lines = trace(shell(sandbox, f"sh -c '{inner} & wait'; true"), "--all")
    both = {(f"j{number}.lab.test.", "A"): 5 for number in range(23)}
    both |= {(f"j{number}.lab.test.", "AAAA"): 5 for number in range(23) if number % 3 < 2}
    assert questions(lines) == both
    owners = {(line["lookup"]["name"], line["process"]["pid"]) for line in of(lines, "lookup")}
    assert len({name for name, _ in owners}) == len({pid for _, pid in owners}) == len(owners) == 23
    assert executables(lines, "lookup") - {None} <= set(built)  # None: gone before the agent could look
    total = sum(both.values())
    assert lines[-1]["stats"]["queries"] == {"sent": total, "answered": total, "unanswered": 0}
    assert lines[-1]["stats"]["lost"] == {}
    check_targets(lines)


def test_a_fork_without_exec_is_followed(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The child of a threaded program looks up by itself: three lookups of the parent, one of the child."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT, log=False):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--threads", 3, "--fork-child"])
        lines = trace(program, "--stuck-after", "250ms")
    by_pid = Counter(line["process"]["pid"] for line in of(lines, "lookup"))
    assert sorted(by_pid.values()) == [1, 3]
    assert by_pid[program.pid] == 3
    assert {line["lookup"]["status"] for line in of(lines, "lookup")} == {"failed"}
    assert lines[-1]["stats"]["lookups"]["started"] == 4
    check_targets(lines)


def test_a_child_that_outlives_its_parent_is_traced_to_its_end(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """The target exits, its child goes on: the agent ends only with the child, after its last lookup."""
    binary = of_this_machine(programs, "lookup-glibc")
    slow = f"{binary} --name www.lab.test --count 11 --threads 0 --repeat-delay-us 50000 >/dev/null &"
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = shell(sandbox, slow)
        lines = trace(program, "--all")
    assert names(lines) == {"www.lab.test": 11}
    assert pids(lines, "exited").index(program.pid) < len(pids(lines, "exited")) - 1
    told = [(line["event"], line["process"]["pid"]) for line in lines if "process" in line]
    parents_end = max(number for number, (_, pid) in enumerate(told) if pid == program.pid)
    assert "lookup" in {event for event, _ in told[parents_end:]}


def test_a_stuck_child_is_told_and_its_kill_ends_the_lookup(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """The stuck line names the child, not the shell; when it is killed its lookup ends, the shell goes on."""
    binary = of_this_machine(programs, "lookup-musl")
    with FAULTS["silent"].setup(sandbox, options=PATIENT, log=False):
        program = shell(sandbox, f"{binary} --name www.lab.test --threads 0; true")
        with Agent("attach", "--pid", program.pid, "--children", "--stuck-after", "250ms") as agent:
            program.go()
            stuck = agent.wait_for(lambda line: line["event"] == "lookup_stuck")[0]
            os.kill(stuck["process"]["pid"], 9)
            program.process.communicate(timeout=DEADLINE_S)
            lines = agent.finish()
    assert stuck["process"]["pid"] != program.pid
    assert stuck["process"]["executable"]["name"] == "lookup-musl"
    assert stuck["cause"]["id"] == "ns_silent"
    ended = only(lines, "lookup")["lookup"]
    assert ended["id"] == stuck["lookup"]["id"]
    assert ended["status"] in {"abandoned", "failed"}  # failed: only packets were seen, their socket closed
    check_targets(lines)


def test_children_of_before_are_followed_too(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """What a target had started before --children began is traced: its stuck lookup, and its next one."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1", log=False):
        inner = f"{binary} --name www.lab.test --threads 0 --count 2 & child=$!; wait $child"
        program = Program(sandbox, ["sh", "-c", f"sh -c '{inner}' & {UNTIL_GO} wait", "sh"])
        below = wait_for_descendant(program.pid, "lookup-glibc")
        with Agent("attach", "--pid", program.pid, "--children", "--stuck-after", "250ms") as agent:
            agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            program.go()
            program.process.communicate(timeout=DEADLINE_S)
            lines = agent.finish()
    assert below in pids(lines, "attached")
    ended = of(lines, "lookup")
    assert {line["process"]["executable"]["name"] for line in ended} == {"lookup-glibc"}
    assert [line["lookup"]["since"] for line in ended][-1] == "attach"
    assert "before_attach" in {line["lookup"]["since"] for line in of(lines, "lookup_stuck")}
    check_targets(lines)


def wait_for_descendant(pid: int, name: str) -> int:
    """The process below this one that runs this program."""
    while True:
        for found in processes.descendants(pid):
            if processes.thread_name(found, found) == name:
                return found
        os.sched_yield()


def test_children_by_the_thousand_leave_room_for_more(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After 1,301 short-lived children, more than there is room for at once, a new one is still followed."""
    binary = of_this_machine(programs, "lookup-glibc")
    many = "i=0; while [ $i -lt 1301 ]; do /bin/true; i=$((i + 1)); done; "
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = shell(sandbox, f"{many} {binary} --name www.lab.test --count 13; true")
        lines = trace(program, "--all")
    assert names(lines) == {"www.lab.test": 13}
    assert lines[-1]["stats"]["lookups"]["ok"] == 13
    assert lines[-1]["stats"]["lost"] == {}
    check_targets(lines)


def test_children_without_room_are_counted(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """1,103 children alive at once: those beyond 1,024 processes are a loss with their number, told once."""
    binary = of_this_machine(programs, "lookup-glibc")
    stay = 'i=0; while [ $i -lt 1103 ]; do (while [ ! -e "$2.end" ]; do sleep 1; done) & i=$((i + 1)); done; '
    forks = f'{stay} {binary} --name www.lab.test; : > "$2.end"; wait'
    with FAULTS["healthy"].setup(sandbox, log=False):
        lines = trace(shell(sandbox, forks), "--all")
    assert set(lines[-1]["stats"]["lost"]) == {"kernel_map_targets"}
    assert of(lines, "lost")[0]["lost"]["remedy"]
    assert lines[-1]["stats"]["lost"]["kernel_map_targets"] > 1103 - 1024
    check_targets(lines)
