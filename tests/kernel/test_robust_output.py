"""Outputs that are closed, slow, full or moved: the real agent goes on, and counts what it cannot write."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import promises
import pytest
from agent import Agent, environment, of
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

DEADLINE_S = 60
MIB = 1 << 20
SMALLEST_PIPE_BYTES = 4096
RESIDENT_LIMIT_BYTES = 160 * MIB


def parsed(data: bytes) -> list[Line]:
    """Whole lines, each a JSON object."""
    assert data.endswith(b"\n")
    return [json.loads(text) for text in data.splitlines()]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with room for a few lines."""
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, SMALLEST_PIPE_BYTES)
    yield read_fd, write_fd
    for fd in (read_fd, write_fd):
        with contextlib.suppress(OSError):
            os.close(fd)


def read_to_end(fd: int) -> bytes:
    found = []
    while chunk := os.read(fd, MIB):
        found.append(chunk)
    return b"".join(found)


# A reader that goes.


def test_a_reader_that_has_seen_enough_ends_the_agent_quietly(
    sandbox: Sandbox, programs: dict[str, Path], pipe: tuple[int, int]
) -> None:
    """After `| head -1` is gone the agent ends by itself: code 0, no word on stderr, the target goes on."""
    read_fd, write_fd = pipe
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--count", 11])
        with Agent("attach", "--pid", program.pid, "--all", stdout=write_fd) as agent:
            os.close(write_fd)
            head = subprocess.run(["head", "-1"], stdin=read_fd, capture_output=True, check=True)
            os.close(read_fd)
            assert agent.process.wait(DEADLINE_S) == 0
        assert agent.log == ""
        program.go()
        assert program.result()["ok"] == 11
    assert parsed(head.stdout)[0]["target"]["status"] == "attached"


# A reader that does not read.


def test_a_reader_that_sleeps_slows_nobody_and_learns_what_it_missed(
    sandbox: Sandbox, programs: dict[str, Path], pipe: tuple[int, int]
) -> None:
    """10,007 lines into a pipe that nobody reads: no target waits, memory is bounded, the loss is exact."""
    read_fd, write_fd = pipe
    binary = of_this_machine(programs, "lookup-musl")
    name, count = f"{'x' * 60}.lab.test", 10_007
    argv = [binary, "--name", name, "--unique", "--threads", 0, "--count", count, "--linger"]
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--all", stdout=write_fd) as agent:
            os.close(write_fd)
            program.go()
            assert first_result(program)["ok"] == count
            assert resident_bytes(agent.pid) < RESIDENT_LIMIT_BYTES
            chunks = [b""]
            while b'"event":"lost"' not in chunks[-1]:
                chunks.append(os.read(read_fd, MIB))
            agent.process.terminate()
            lines = parsed(b"".join([*chunks, read_to_end(read_fd)]))
            assert agent.process.wait(DEADLINE_S) == 0
    promises.check(lines, was_stopped=True)
    lost = lines[-1]["stats"]["lost"]
    assert set(lost) == {"output"}
    assert len(of(lines, "lookup")) + lost["output"] == count
    assert of(lines, "lost")[0]["lost"]["remedy"]
    assert lines[-1]["stats"]["lookups"]["ok"] == count


def first_result(program: Program) -> dict[str, Any]:
    """What a program that lingers has printed."""
    assert program.process.stdout is not None
    found: dict[str, Any] = json.loads(program.process.stdout.readline())
    return found


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# A disk that is full.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_a_full_disk_loses_no_line_while_memory_has_room(
    sandbox: Sandbox, programs: dict[str, Path], small_disk: Path
) -> None:
    """503 lines wait while the disk is full, and are whole and in order in the file once there is room."""
    filler, output = small_disk / "filler", small_disk / "lines.jsonl"
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["healthy"].setup(sandbox, log=False):
        argv = [binary, "--name", "lab.test", "--unique", "--count", 503, "--threads", 0, "--linger"]
        program = Program(sandbox, argv)
        fill(filler)
        with Agent("attach", "--pid", program.pid, "--all", "--output", output) as agent:
            program.go()
            assert first_result(program)["ok"] == 503
            assert len(output.read_bytes()) < SMALLEST_PIPE_BYTES
            filler.unlink()
            agent.process.terminate()
            assert agent.process.wait(DEADLINE_S) == 0
    lines = parsed(output.read_bytes())
    promises.check(lines, was_stopped=True)
    names = [line["lookup"]["name"] for line in of(lines, "lookup")]
    assert names == [f"t0-{number}.lab.test" for number in range(503)]
    assert lines[-1]["stats"]["lost"] == {}


def fill(path: Path) -> None:
    """Write until there is no room left."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(SMALLEST_PIPE_BYTES))


# A file that is moved away.


def test_sighup_goes_on_in_a_new_file(sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path) -> None:
    """Rotated three times in the middle of 1,009 lookups: each line is in exactly one file, all are there."""
    output = tmp_path / "lines.jsonl"
    moved = [tmp_path / f"lines.jsonl.{number}" for number in range(3)]
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "lab.test", "--unique", "--count", 1009, "--threads", 0]
    with FAULTS["healthy"].setup(sandbox, log=False):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--all", "--output", output) as agent:
            program.go()
            for away in moved:
                wait_until_there(output, 1)
                output.rename(away)
                agent.process.send_signal(signal.SIGHUP)
                wait_until_there(output, 0)
            program.result()
            assert agent.process.wait(DEADLINE_S) == 0
        assert agent.log == ""
    lines = [line for path in (*moved, output) if path.stat().st_size for line in parsed(path.read_bytes())]
    promises.check(lines, was_stopped=False)
    names = [line["lookup"]["name"] for line in of(lines, "lookup")]
    assert names == [f"t0-{number}.lab.test" for number in range(1009)]


def wait_until_there(path: Path, least_bytes: int) -> None:
    """Return once the file is there and has so many bytes."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not (path.exists() and path.stat().st_size >= least_bytes):
        assert time.monotonic() < give_up_at
        os.sched_yield()


# Options about time and names.


def test_duration_ends_the_agent(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After --duration it detaches with code 0 and the last stats; the target has not noticed."""
    program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", "192.0.2.10"])
    with Agent("attach", "--pid", program.pid, "--duration", "300ms") as agent:
        lines = agent.finish(was_stopped=True)
    assert [line["target"]["status"] for line in of(lines, "target")] == ["attached", "detached"]
    program.go()
    assert program.result()["ok"] == 1


def test_no_ready_file_where_nothing_is_ready(tmp_path: Path) -> None:
    """When the target is gone no ready file appears, and no output file either."""
    process = subprocess.Popen(["true"])
    process.wait()
    ready, output = tmp_path / "ready", tmp_path / "lines.jsonl"
    words = ["--pid", str(process.pid), "--ready-file", str(ready), "--output", str(output)]
    argv = [sys.executable, "-P", "-m", "ebpfdns", "attach", *words]
    done = subprocess.run(argv, env=environment(), capture_output=True, check=False)
    assert done.returncode == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("libc", ["glibc", "musl", "wire"])
def test_redacted_names_are_nowhere(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """With --redact-names no line holds a name; equal names stay equal, others differ."""
    kind = "wire-musl-stripped" if libc == "wire" else f"lookup-{libc}"
    binary = of_this_machine(programs, kind)
    once = [] if libc == "wire" else ["--threads", 0, "--connect", 443]
    names = ("secret.lab.test", "other.lab.test", "secret.lab.test")
    with FAULTS["late_reply"].setup(sandbox, options="timeout:1 attempts:1", log=False):
        started = [Program(sandbox, [binary, "--name", name, *once]) for name in names]
        pids = [word for program in started for word in ("--pid", program.pid)]
        with Agent("attach", *pids, "--all", "--stuck-after", "250ms", "--redact-names") as agent:
            for program in started:
                program.go()
            for program in started:
                program.result()
            lines = agent.finish()
    assert re.findall(rb"secret|other|lab\.test|lab.{0,3}test", agent.text) == []
    told = [{line["lookup"]["name"] for line in of(lines, "lookup", program.pid)} for program in started]
    assert [len(found) for found in told] == [1, 1, 1]
    assert told[0] == told[2] != told[1]
    stuck = of(lines, "lookup_stuck")
    assert len({line["lookup"]["id"] for line in stuck}) == 3
