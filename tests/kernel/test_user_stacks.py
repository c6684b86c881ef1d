"""The stack of a thread in a lookup, and the name it asks for: as gdb sees it, and nothing that is past."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER
from ebpfdns.observe import query_buffer, user_stack
from ebpfdns.observe.processes import threads
from ebpfdns.observe.snapshot import thread_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox
    from ebpfdns.observe.query_buffer import Asked

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]
needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="apt-get install gdb")
amd64_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="checked on amd64 only")

PATIENT = "timeout:15 attempts:1"
DEADLINE_S = 30.0
#: The program counter of each frame of one thread; what was put inside another, or jumped to, has none.
GDB_FRAMES = """
for thread in gdb.selected_inferior().threads():
    if thread.ptid[1] == {tid}:
        thread.switch()
        frame = gdb.newest_frame()
        while frame is not None:
            if frame.type() == gdb.NORMAL_FRAME:
                print("frame", frame.pc())
            frame = frame.older()
"""
OLD = "a.rather.long.name.that.was.asked.for.before." + "x" * 40 + ".old.lab.test"
#: Deep below first, with a long name, then from the top with a short one: what is left lies in live frames.
TWO_LOOKUPS = """
import socket
def deep(depth):
    if depth:
        return list(map(deep, [depth - 1]))
    return socket.getaddrinfo("{old}", 80)
try:
    deep({depth})
except OSError:
    pass
socket.{api}
"""


def pcs_by_gdb(pid: int, tid: int, folder: Path) -> list[int]:
    script = folder / "frames.py"
    script.write_text(GDB_FRAMES.format(tid=tid))
    argv = ["gdb", "-nx", "-batch", "-p", str(pid), "-x", str(script)]
    printed = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    return [int(line.split()[1]) for line in printed.splitlines() if line.startswith("frame ")]


def questions(pid: int) -> dict[int, Asked]:
    """What each thread of a process asks for, of those of which it can be told."""
    seen = user_stack.stacks_of(pid, threads(pid))
    asked = {tid: query_buffer.asked(stack, frames) for tid, (frames, stack) in seen.items()}
    return {tid: question for tid, question in asked.items() if question is not None}


def until(look: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + DEADLINE_S
    while not (found := look()):
        assert time.monotonic() < give_up_at, "it never came to that"
        time.sleep(0.005)
    return found


def question_of(pid: int) -> tuple[int, Asked]:
    ((tid, question),) = until(lambda: questions(pid)).items()
    return tid, question


def serving(*script: dict[str, Any]) -> Fault:
    return Fault(name="own", sentence="The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


@amd64_only
@needs_gdb
@pytest.mark.parametrize(
    "api", ["getaddrinfo", "gethostbyname", "gethostbyname_r", "res_query", "res_search"]
)
def test_frames_are_those_that_gdb_finds(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path, api: str
) -> None:
    """Every frame that gdb finds by stopping the thread is found without, and the API is named."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "www.lab.test", "--api", api]
    with FAULTS["silent"].setup(sandbox, options=PATIENT):
        program = Program(sandbox, argv)
        program.go()
        tid, question = question_of(program.pid)
        for each in threads(program.pid):
            frames = user_stack.stack_of(program.pid, each)
            by_gdb = pcs_by_gdb(program.pid, each, tmp_path)
            assert len(by_gdb) > 2
            assert [frame.pc for frame in frames][: len(by_gdb)] == by_gdb
        names = [frame.symbol for frame in user_stack.stack_of(program.pid, tid)]
        assert question.name == "www.lab.test."
        program.process.kill()
    assert names[0] == "poll"
    assert "look_up" in names
    assert any(name is not None and name.lstrip("_").replace("res_n", "res_") == api for name in names), names


@amd64_only
@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static"])
@pytest.mark.parametrize(("api", "types"), [("getaddrinfo", ("A", "AAAA")), ("gethostbyname", ("A",))])
def test_the_question_is_the_one_that_the_server_got(
    sandbox: Sandbox, programs: dict[str, Path], libc: str, api: str, types: tuple[str, ...]
) -> None:
    """Name, types and transaction ids of a blocked lookup are read from its stack, whichever libc it has."""
    argv = [of_this_machine(programs, f"lookup-{libc}"), "--name", "www.lab.test", "--api", api]
    with FAULTS["silent"].setup(sandbox, options=PATIENT) as running:
        program = Program(sandbox, argv)
        program.go()
        _, question = question_of(program.pid)
        got = until(lambda: found if len(found := running.queries()) == len(types) else None)
        program.process.kill()
    assert (question.name, question.types) == ("www.lab.test.", types)
    assert {(query["name"], query["type"]) for query in got} == {("www.lab.test", kind) for kind in types}
    assert set(question.ids) == {query["id"] for query in got}


@amd64_only
@pytest.mark.parametrize("depth", [0, 1, 3, 10, 100])
@pytest.mark.parametrize("api", ['getaddrinfo("new.lab.test", 80)', 'gethostbyname("new.lab.test")'])
def test_an_earlier_lookup_of_another_name_is_past(sandbox: Sandbox, api: str, depth: int) -> None:
    """What an earlier lookup left on the stack, from deeper below or not, is never taken for the question."""
    fault = serving({"suffix": "old.lab.test", "rcode": 2}, {"drop": True})
    with fault.setup(sandbox, options=PATIENT):
        program = sandbox.popen(
            [sys.executable, "-S", "-c", TWO_LOOKUPS.format(api=api, depth=depth, old=OLD)]
        )
        names = until(lambda: {question.name for question in questions(program.pid).values()} - {f"{OLD}."})
        program.kill()
    assert names == {"new.lab.test."}


@amd64_only
@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static"])
def test_of_several_lookups_the_last_counts(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """The third lookup of a thread is told, not one of the two before; two threads have a name each."""
    argv = [of_this_machine(programs, f"lookup-{libc}"), "--name", "lab.test", "--unique", "--count", 3]
    last = {f"t{thread}-2.lab.test" for thread in range(2)}
    fault = serving(*({"suffix": name, "drop": True} for name in last), GOOD_ANSWER)
    with fault.setup(sandbox, options=PATIENT):
        program = Program(sandbox, [*argv, "--threads", 2])
        program.go()
        wanted = {f"{name}." for name in last}
        names = until(
            lambda: (found := {q.name for q in questions(program.pid).values()}) == wanted and found
        )
        program.process.kill()
    assert names == wanted


@amd64_only
@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static"])
def test_a_thread_that_waits_for_something_else_asks_nothing(
    sandbox: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """After its lookup a thread may sleep elsewhere, the old question still on its stack: it is not told."""
    argv = [of_this_machine(programs, f"lookup-{libc}"), "--name", "www.lab.test", "--threads", 0, "--linger"]
    with FAULTS["healthy"].setup(sandbox, options=PATIENT) as running:
        program = Program(sandbox, argv)
        program.go()
        until(lambda: len(running.queries()) >= 2)
        until(lambda: user_stack._call_text(program.pid, program.pid).startswith("34 "))  # pause
        seen = user_stack.stacks_of(program.pid, [program.pid])[program.pid]
        assert query_buffer.asked(seen.stack, seen.frames) is None
        program.process.kill()
    assert seen.frames


@amd64_only
@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static"])
def test_a_stop_changes_nothing(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """Stopped, and going on afterwards (poll is another system call then), it asks the same question."""
    argv = [of_this_machine(programs, f"lookup-{libc}"), "--name", "www.lab.test"]
    with FAULTS["silent"].setup(sandbox, options=PATIENT):
        program = Program(sandbox, argv)
        program.go()
        tid, question = question_of(program.pid)
        before = user_stack.stack_of(program.pid, tid)
        program.process.send_signal(signal.SIGSTOP)
        until(lambda: thread_snapshot(program.pid, tid)["state"] == "T")
        assert questions(program.pid) == {tid: question}
        program.process.send_signal(signal.SIGCONT)
        until(lambda: thread_snapshot(program.pid, tid)["syscall"] == "restart_syscall")
        assert questions(program.pid) == {tid: question}
        assert user_stack.stack_of(program.pid, tid) == before
        program.process.kill()


@amd64_only
def test_without_symbols_nothing_is_claimed(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A stripped program with musl inside proves neither caller nor question: both are left out."""
    argv = [of_this_machine(programs, "lookup-musl-stripped"), "--name", "www.lab.test"]
    with FAULTS["silent"].setup(sandbox, options=PATIENT) as running:
        program = Program(sandbox, argv)
        program.go()
        until(running.queries)
        for tid in threads(program.pid):
            until(lambda tid=tid: user_stack.stack_of(program.pid, tid))
            assert [frame.symbol for frame in user_stack.stack_of(program.pid, tid)] == [None]
        assert questions(program.pid) == {}
        program.process.kill()


@amd64_only
def test_a_python_program_is_seen_from_the_call_to_its_start(sandbox: Sandbox) -> None:
    """A program without debug symbols is walked through to its start."""
    with FAULTS["silent"].setup(sandbox, options=PATIENT):
        program = sandbox.popen([sys.executable, "-S", "-c", "import socket; socket.getaddrinfo('www', 80)"])
        tid, _ = question_of(program.pid)
        names = [frame.symbol for frame in user_stack.stack_of(program.pid, tid)]
        program.kill()
    assert (names[0], names[-1]) == ("poll", "_start")
    assert "getaddrinfo" in names


@amd64_only
@pytest.mark.parametrize("api", ["getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyname_r"])
@pytest.mark.parametrize(
    ("given", "asked"),
    [("www", "www.corp.lab.test."), ("www.lab.test", "www.lab.test."), ("www.lab.test.", "www.lab.test.")],
)
def test_the_name_that_the_program_gave_is_told(
    sandbox: Sandbox, programs: dict[str, Path], api: str, given: str, asked: str
) -> None:
    """The question has the search domain, the name is what the program wrote."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", given, "--api", api]
    with FAULTS["silent"].setup(sandbox, options=f"{PATIENT}\nsearch corp.lab.test"):
        program = Program(sandbox, argv)
        program.go()
        tid, _ = question_of(program.pid)
        found = thread_snapshot(program.pid, tid)
        program.process.kill()
    assert (found["asked"]["name"], found["asked"]["program_name"]) == (asked, given)
    assert json.loads(json.dumps(found)) == found
