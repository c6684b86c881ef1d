"""Programs that are stuck before there is an agent, and what is said of them.

Owns: getting one stuck, and what holds of each line about it. Must not know: any one story.
"""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import of
from program import Program

from ebpfdns.lab import topology
from ebpfdns.lab.faults import Fault, ServerPlan
from ebpfdns.observe import processes, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="apt-get install nftables")
NAME = "www.lab.test"
SLOW = "timeout:3 attempts:2"
SOON_S = 2.0  # the promise
DEADLINE_S = 30.0
STUCK = "lookup_stuck"
#: faults that no question reaches
LOCAL = {"nscd_stall"}


def serving(*script: dict[str, Any]) -> Fault:
    return Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for a fact that has no file."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def sits_in(pid: int, call: str, count: int = 1) -> Callable[[], bool]:
    """Whether so many threads of the process sit in a system call."""

    def is_so() -> bool:
        paths = [f"/proc/{pid}/task/{tid}/syscall" for tid in processes.threads(pid)]
        return sum(call_in(path) == call for path in paths) >= count

    return is_so


def call_in(path: str) -> str | None:
    try:
        with open(path) as file:  # noqa: PTH123 - in a loop
            return syscalls.parse_call(file.read()).name
    except OSError:
        return None


@contextmanager
def stuck(
    sandbox: Sandbox,
    fault: Fault,
    argv: list[object],
    call: str = "poll",
    *,
    count: int = 1,
    options: str = SLOW,
) -> Iterator[Program]:
    """A program whose threads sit in this system call of a lookup, before there is an agent."""
    with fault.setup(sandbox, options=options, log=True) as running:
        program = Program(sandbox, argv)
        program.go()
        wait_until(lambda: running.queries() or fault.name in LOCAL)
        wait_until(sits_in(program.pid, call, count))
        yield program


def is_stopped(pid: int) -> bool:
    tids = processes.threads(pid)
    states = [Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(") ")[2][0] for tid in tids]
    return set(states) == {"T"}


def seconds_after_attach(line: Line, lines: list[Line]) -> float:
    """When the line was written, by its own clock."""
    attached, told = (datetime.fromisoformat(one["ts"]) for one in (of(lines, "target")[0], line))
    return (told - attached).total_seconds()


def is_stuck(line: Line) -> bool:
    return line["event"] == STUCK


def was_asked_again(line: Line) -> bool:
    """Whether a repetition of its questions was seen."""
    queries = line["lookup"]["queries"] if is_stuck(line) else []
    return bool({query["resent_ms"] for query in queries} - {None})


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def check_earlier(line: Line) -> None:
    """Nothing is told that would need its start."""
    lookup = line["lookup"]
    assert lookup["since"] == "before_attach"
    assert (lookup["started"], lookup.get("elapsed_ms"), lookup.get("duration_ms")) == (None, None, None)
    assert lookup["open_for_at_least_ms"] > 0
