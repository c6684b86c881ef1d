"""Whatever becomes of threads and processes in mid lookup: each lookup ends once, and all are counted."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root"),
]

IMPATIENT = "timeout:1 attempts:1"
PATIENT = "timeout:30 attempts:1"
LATE_MS = 1000  # four times what the contract allows: other tests run too, and `make bench` measures it
THREADS = 1009
MANY = 10_007

#: waits for its go file, then runs what the test has put in its place
PYTHON_TARGET = """
import ctypes, os, socket, sys, threading, time
ready_file, go_file = sys.argv[sys.argv.index("--ready-file") + 1], sys.argv[sys.argv.index("--go-file") + 1]
def until_go():
    open(ready_file, "w").close()
    while not os.path.exists(go_file):
        time.sleep(0.002)
def look_up(name, *more):
    try:
        socket.getaddrinfo(name, *more)
    except OSError:
        pass
"""
DEAD_MAIN_THREAD = """
def others():
    until_go()
    look_up("www.lab.test", None, socket.AF_INET)
    os._exit(0)
threading.Thread(target=others).start()
while threading.active_count() < 2 {and_more}:
    time.sleep(0.001)
ctypes.CDLL(None).pthread_exit(None)
"""
UNTIL_GO = "or not os.path.exists(go_file)"
THREADS_COME_AND_GO = """
until_go()
for start in range(0, {count}, 101):
    number = min(101, {count} - start)
    threads = [threading.Thread(target=look_up, args=("192.0.2.10", 80)) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("{{}}")
"""


def python_target(sandbox: Sandbox, text: str) -> Program:
    return Program(sandbox, [sys.executable, "-I", "-S", "-c", PYTHON_TARGET + text])


def is_stuck(line: Line) -> bool:
    return bool(line["event"] == "lookup_stuck")


def statuses(lines: list[Line]) -> Counter[str]:
    return Counter(line["lookup"]["status"] for line in of(lines, "lookup"))


# Killed.


@pytest.mark.parametrize("name", ["lookup-glibc", "lookup-musl", "lookup-musl-static"])
def test_a_killed_process_abandons_its_lookup(sandbox: Sandbox, programs: dict[str, Path], name: str) -> None:
    """After kill -9 in mid lookup: one closing line `abandoned`, the target exited, stats, code 0."""
    binary = of_this_machine(programs, name)
    with FAULTS["silent"].setup(sandbox, options=PATIENT):
        program = Program(sandbox, [binary, "--name", "www.lab.test"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            program.go()
            stuck = agent.wait_for(is_stuck)[0]
            program.process.kill()
            lines = agent.finish()
    ended = only(lines, "lookup")["lookup"]
    assert (ended["id"], ended["status"]) == (stuck["lookup"]["id"], "abandoned")
    assert ended["duration_ms"] >= 250
    assert [line["target"]["status"] for line in of(lines, "target")] == ["attached", "exited"]
    counts = lines[-1]["stats"]["lookups"]
    assert counts == {"started": 1, "ok": 0, "failed": 0, "abandoned": 1, "stuck": 1, "in_flight": 0}
    assert lines[-1]["stats"]["queries"]["answered"] == 0
    assert lines[-1]["stats"]["lost"] == {}


def test_a_killed_process_without_libc_has_failed(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The same with a stripped static program: its socket goes with it, so the lookup has failed."""
    binary = of_this_machine(programs, "wire-musl-stripped")
    with FAULTS["silent"].setup(sandbox):
        program = Program(sandbox, [binary, "--timeout-ms", 60_000])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            program.go()
            agent.wait_for(is_stuck)
            program.process.kill()
            lines = agent.finish()
    ended = only(lines, "lookup")["lookup"]
    assert (ended["status"], ended["error"]["type"]) == ("failed", "UNANSWERED")
    assert lines[-1]["stats"]["queries"] == {"sent": 1, "answered": 0, "unanswered": 1}


def test_a_process_killed_with_many_threads_abandons_each_lookup(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """101 threads in mid lookup, all killed: 101 first stuck lines, 101 lines `abandoned`, none twice."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options=PATIENT):
        program = Program(sandbox, [binary, "--name", "lab.test", "--unique", "--threads", 101])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            program.go()
            agent.wait_for(lambda line: is_stuck(line) and line["lookup"]["update"] == 1, count=101)
            program.process.kill()
            lines = agent.finish()
    assert statuses(lines) == {"abandoned": 101}
    names = {line["lookup"]["name"] for line in of(lines, "lookup")}
    assert names == {f"t{number}-0.lab.test" for number in range(101)}


# Left by rude ways.


@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static"])
@pytest.mark.parametrize("way", ["--cancel", "--signal-thread-exit-ms=200", "--longjmp"])
def test_a_lookup_left_in_the_middle_is_abandoned(
    sandbox: Sandbox, programs: dict[str, Path], libc: str, way: str
) -> None:
    """By pthread_cancel, pthread_exit or longjmp: one abandoned, the others as the program counts them."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--threads", 3, way])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "100ms") as agent:
            program.go()
            own = program.result()
            lines = agent.finish()
    assert own["abandoned"] == 1
    expected = {"ok": own["ok"], "failed": own["failed"], "abandoned": 1}
    assert dict(statuses(lines)) == {status: count for status, count in expected.items() if count}
    counts = lines[-1]["stats"]["lookups"]
    assert {status: counts[status] for status in expected} == expected
    assert counts["started"] == sum(expected.values())


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_exec_in_mid_lookup_abandons_it_and_the_new_program_is_seen(
    sandbox: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """At exec from another thread three lookups are abandoned; that of the new program is seen, once."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    words = ["--name", "old.lab.test", "--then-name", "new.lab.test", "--threads", 3, "--exec"]
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        program = Program(sandbox, [binary, *words])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "100ms", "--children") as agent:
            program.go()
            assert program.result()["failed"] == 1
            lines = agent.finish()
    by_name = Counter((line["lookup"]["name"], line["lookup"]["status"]) for line in of(lines, "lookup"))
    assert by_name == {("old.lab.test", "abandoned"): 3, ("new.lab.test", "failed"): 1}
    new = next(line for line in of(lines, "lookup") if line["lookup"]["name"] == "new.lab.test")
    assert new["lookup"]["api"] == "getaddrinfo"
    statuses_told = [line["target"]["status"] for line in of(lines, "target")]
    assert statuses_told[0] == "attached"
    assert statuses_told[-1] == "exited"


def test_a_fork_in_a_threaded_program_changes_nothing(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The child is not traced without --children; the three lookups of the parent are, exactly.

    That the child is in a lookup of its own is told (`child_process`), and nothing else of it.
    """
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--threads", 3, "--fork-child"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "100ms") as agent:
            program.go()
            assert program.result()["failed"] == 3
            lines = agent.finish()
    of_child = [line for line in lines if line.get("process", {}).get("pid") not in {None, program.pid}]
    assert {line["cause"]["id"] for line in of_child} <= {"child_process"}
    lines = [line for line in lines if line not in of_child]
    assert statuses(lines) == {"failed": 3}
    assert lines[-1]["stats"]["lookups"]["started"] == 3


# Main threads that are gone, and threads by the thousand.


def test_a_process_with_a_dead_main_thread_is_traced(sandbox: Sandbox) -> None:
    """Attached when its first thread is a zombie already: the other thread's lookup is seen all the same."""
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        program = python_target(sandbox, DEAD_MAIN_THREAD.format(and_more=""))
        wait_until_zombie(program.pid)
        with Agent("attach", "--pid", program.pid, "--stuck-after", "250ms") as agent:
            program.go()
            stuck = agent.wait_for(is_stuck)[0]
            lines = agent.finish()
    assert stuck["lookup"]["name"] == "www.lab.test"
    assert stuck["lookup"]["waiting_on"]["syscall"] in {"poll", "ppoll"}
    assert stuck["thread"]["id"] != program.pid
    assert stuck["cause"]["id"] == "ns_silent"
    coverage = of(lines, "target")[0]["target"]["coverage"]
    assert coverage["libc"].startswith("glibc")
    assert statuses(lines) == {"failed": 1}


def test_a_main_thread_that_ends_while_traced_takes_nothing_along(sandbox: Sandbox) -> None:
    """Its first thread ends by pthread_exit after the agent has attached: the other one's lookup is seen."""
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        program = python_target(sandbox, DEAD_MAIN_THREAD.format(and_more=UNTIL_GO))
        with Agent("attach", "--pid", program.pid, "--stuck-after", "500ms") as agent:
            program.go()
            wait_until_zombie(program.pid)
            stuck = agent.wait_for(is_stuck)[0]
            lines = agent.finish()
    assert (stuck["lookup"]["name"], stuck["lookup"]["api"]) == ("www.lab.test", "getaddrinfo")
    assert stuck["thread"]["id"] != program.pid
    assert statuses(lines) == {"failed": 1}
    assert [line["target"]["status"] for line in of(lines, "target")] == ["attached", "exited"]


def wait_until_zombie(pid: int) -> None:
    """Return once the first thread of the process has ended."""
    while True:
        with open(f"/proc/{pid}/task/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            if file.read().rpartition(") ")[2].startswith("Z"):
                return
        os.sched_yield()


def test_a_thousand_threads_stuck_at_once_are_each_told_in_time(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """1,009 lookups stuck at once: one first line each, none late, none lost, and each ends."""
    binary = of_this_machine(programs, "lookup-musl")
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1", log=False):
        program = Program(sandbox, [binary, "--name", "lab.test", "--unique", "--threads", THREADS])
        with Agent("attach", "--pid", program.pid) as agent:
            program.go()
            program.result()
            lines = agent.finish()
    first = [line for line in of(lines, "lookup_stuck") if line["lookup"]["update"] == 1]
    names = {f"t{number}-0.lab.test" for number in range(THREADS)}
    assert sorted(line["lookup"]["name"] for line in first) == sorted(names)
    assert max(line["lookup"]["elapsed_ms"] for line in first) <= 1000 + LATE_MS
    assert statuses(lines) == {"failed": THREADS}
    assert lines[-1]["stats"]["lost"] == {}


@pytest.mark.parametrize("mode", [[], ["--children"]], ids=("one_process", "children"))
def test_lookups_are_counted_exactly_while_threads_come_and_go(sandbox: Sandbox, mode: list[str]) -> None:
    """10,007 threads, each with one lookup, a hundred at a time: all are counted, none is left open."""
    program = python_target(sandbox, THREADS_COME_AND_GO.format(count=MANY))
    with Agent("attach", "--pid", program.pid, "--slow-after", "60s", "--stuck-after", "60s", *mode) as agent:
        program.go()
        program.result()
        lines = agent.finish()
    counts = lines[-1]["stats"]["lookups"]
    assert counts == {"started": MANY, "ok": MANY, "failed": 0, "abandoned": 0, "stuck": 0, "in_flight": 0}
    assert lines[-1]["stats"]["latency_ms"]["lookup"]["count"] == MANY
    assert lines[-1]["stats"]["lost"] == {}
    assert of(lines, "lookup") == []
