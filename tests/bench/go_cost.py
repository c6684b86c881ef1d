"""What the probes add to a lookup of a Go program, and whether very many of them are survived and counted.

Owns: the rounds without a tracer, with empty probes at the very same places, and with the agent.
Must not know: how a tracer is started (`tracers`), how the table looks (`table`).

The quickest lookup there is: of a numeric address. It passes the function that every lookup passes, once.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "kernel")]

import tracers  # noqa: E402
from go_survival import FULL, Load, survive  # noqa: E402 - found by the line above
from gotarget import Flavour, GoMissingError, gotarget  # noqa: E402
from table import Row, median, median_ratio  # noqa: E402

from ebpfdns.errors import EbpfdnsError  # noqa: E402
from ebpfdns.observe import go_program  # noqa: E402
from ebpfdns.observe.go_probes import STACK_CHECK_BYTES, begin_of  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    #: tracer → nanoseconds a lookup
    Round = dict[str, float]

FUNCTION = "net.(*Resolver).lookupIPAddr"
NUMERIC = "192.0.2.1"
CALLS, PASSES = 10_000, 3  # where probes are single-stepped by a virtual machine, each takes long


class Loop:
    """A running Go program that looks up as often as it is told, on one processor."""

    def __init__(self, program: Path, cpu: int) -> None:
        argv, pipe = [program, "--way", "loop", "--name", NUMERIC], subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        for tid in os.listdir(f"/proc/{self.process.pid}/task"):  # noqa: PTH208 - numbers
            os.sched_setaffinity(int(tid), {cpu})

    def ns_per_call(self, count: int) -> float:
        """The best of a few passes."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        taken = []
        for _ in range(PASSES):
            self.process.stdin.write(f"{count}\n")
            self.process.stdin.flush()
            taken.append(float(self.process.stdout.readline()))
        return min(taken)


@contextlib.contextmanager
def _loop(program: Path) -> Iterator[Loop]:
    running = Loop(program, min(os.sched_getaffinity(0)))
    try:
        yield running
    finally:
        running.process.communicate()


def measure(folder: Path, rounds: int, scale: float) -> tuple[list[Row], list[Round]]:
    """All rows about Go, and the raw figures of every round."""
    try:
        program = gotarget(Flavour())
    except GoMissingError as error:
        raise EbpfdnsError(str(error)) from error
    found = go_program.find(str(program))
    assert found is not None
    function = found.functions[FUNCTION]
    with program.open("rb") as file:
        file.seek(function.entry)
        begins = function.entry + begin_of(file.read(STACK_CHECK_BYTES))
    places = tuple(f"{program}:{offset}" for offset in (begins, *function.returns))
    with _loop(program) as target:
        played = [_round(target, folder, places, int(CALLS * scale)) for _ in range(rounds)]
    return [*_cost_rows(played), *_survival_rows(program, scale)], played


def _round(target: Loop, folder: Path, places: tuple[str, ...], count: int) -> Round:
    figures = {"none": target.ns_per_call(count)}
    pid = target.process.pid
    with tracers.empty(folder, pid, (), places):
        figures["empty"] = target.ns_per_call(count)
    with tracers.agent(folder, pid):
        figures["ebpfdns"] = target.ns_per_call(count)
    return figures


def _cost_rows(played: list[Round]) -> list[Row]:
    pair = [figures["empty"] - figures["none"] for figures in played]
    ours = [figures["ebpfdns"] - figures["none"] for figures in played]
    return [
        Row(what="Go lookup (numeric) without a tracer", value=median(f["none"] for f in played), unit="ns"),
        Row(what="  added by empty probes at entry and returns", value=median(pair), unit="ns"),
        Row(what="  added by ebpfdns", value=median(ours), unit="ns"),
        Row(what="  ebpfdns / empty probes", value=median_ratio(ours, pair), unit="x"),
    ]


def _survival_rows(program: Path, scale: float) -> list[Row]:
    load = Load(FULL.goroutines, int(FULL.lookups * scale))
    survived = survive(program, Flavour(), load)
    counts = survived.stats["lookups"]
    what = f"{load.lookups:,} Go lookups, growing stacks: miscounted"
    return [
        Row(what=what, value=abs(counts["ok"] - load.lookups), limit=0, note="; ".join(survived.problems))
    ]
