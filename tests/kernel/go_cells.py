"""What one build of the Go program must be told of, fault by fault: played under one agent, and compared.

Owns: the cells (fault, way to look up, what must be said), their play side by side, and the comparison.
Must not know: how a table of them looks. Each cell has a network of its own, one agent traces them all.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import agent
from agent import Agent
from play import SHORT, SOON, TRIES
from program import Program

from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox, plain_environment
from ebpfdns.lab.topology import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from gotarget import Flavour

    Line = dict[str, Any]

MAIN_GOROUTINE = 1
MISSED = "kernel_missed"


@dataclass(frozen=True)
class Cell:
    """One fault, and what must be said of a program that meets it."""

    name: str
    fault: str
    cause: str | None = None
    status: str = "ok"  # of the lookup
    words: tuple[str, ...] = ("--way", "ip")
    is_ended: bool = False  # libc would wait two minutes: the program is ended once all else is over

    def status_of(self, flavour: Flavour) -> str:
        """How its lookup ends in this build."""
        return "abandoned" if self.is_ended and flavour.cgo else self.status


CELLS = (
    Cell("silent", "silent", "ns_silent", "failed"),
    Cell("SERVFAIL", "servfail", "rcode_retry", "failed"),
    Cell("truncated", "tcp"),
    Cell("truncated, no TCP", "tcp53_blocked", "tcp53_blocked", "failed", is_ended=True),
    Cell(
        "black-holed connect",
        "connect_after_dns",
        "connect_after_dns",
        words=("--way", "dial", "--within", "3s", "--connect", "443"),
    ),
    Cell("healthy", "healthy"),
)


@dataclass(frozen=True)
class Outcome:
    """What was said in one cell, and what of that is wrong."""

    cell: Cell
    cause: str | None
    confidence: str | None
    api: str | None
    goroutine: int | None
    after_ms: float | None  # how old it was when its cause was first named
    problems: tuple[str, ...] = field(default=())


def play(program: Path, flavour: Flavour, cells: tuple[Cell, ...] = CELLS) -> list[Outcome]:
    """All cells of one build; again when the kernel passed over probes."""
    for _ in range(TRIES):
        lines, pids, results = _play(program, flavour, cells)
        if MISSED not in lines[-1]["stats"]["lost"]:
            break
    found = [_outcome(cell, flavour, lines, pids[cell.name], results[cell.name]) for cell in cells]
    wrong = _miscounted(lines[-1]["stats"], flavour, cells)
    return [
        Outcome(**{**vars(outcome), "problems": (*outcome.problems, *wrong)}) if not at else outcome
        for at, outcome in enumerate(found)
    ]


def _play(
    program: Path, flavour: Flavour, cells: tuple[Cell, ...]
) -> tuple[list[Line], dict[str, int], dict[str, dict[str, Any] | None]]:
    environment = plain_environment() | ({"GODEBUG": "netdns=cgo"} if flavour.cgo else {})
    with contextlib.ExitStack() as stack:
        started: dict[str, Program] = {}
        for cell in cells:
            sandbox = stack.enter_context(Sandbox())
            stack.enter_context(FAULTS[cell.fault].setup(sandbox, options=SHORT))
            argv = [program, "--name", NAME, *cell.words]
            started[cell.name] = Program(sandbox, argv, env=environment)
        pids = {name: running.pid for name, running in started.items()}
        words = [word for pid in pids.values() for word in ("--pid", pid)]
        observer = stack.enter_context(Agent("attach", *words, "--all", "--stuck-after", SOON))
        for running in started.values():
            running.go()
        results: dict[str, dict[str, Any] | None] = {}
        for cell in sorted(cells, key=lambda cell: cell.is_ended and flavour.cgo):
            if cell.is_ended and flavour.cgo:
                observer.wait_for(functools.partial(_names_cause, cell, pids[cell.name]))
                started[cell.name].process.kill()
                results[cell.name] = None
            else:
                results[cell.name] = started[cell.name].result()
        return observer.finish(), pids, results


def _names_cause(cell: Cell, pid: int, line: Line) -> bool:
    is_own = line.get("process", {}).get("pid") == pid
    return bool(is_own and line.get("cause", {}).get("id") == cell.cause)


def _outcome(
    cell: Cell, flavour: Flavour, lines: list[Line], pid: int, result: dict[str, Any] | None
) -> Outcome:
    lookups = agent.of(lines, "lookup", pid)
    told = [line for line in lines if line.get("process", {}).get("pid") == pid and line.get("cause")]
    named = [line for line in told if line["cause"]["id"] == cell.cause]
    last = (named if cell.cause else told)[-1:]
    lookup = lookups[0]["lookup"] if lookups else {}
    goroutine = (lookup.get("goroutine") or {}).get("id")
    first = named[0] if named else {}
    thing = first.get("lookup") or first.get("connect") or {}
    outcome = Outcome(
        cell,
        last[0]["cause"]["id"] if last else None,
        last[0]["cause"]["confidence"] if last else None,
        lookup.get("api"),
        goroutine,
        thing.get("elapsed_ms", thing.get("duration_ms")),
    )
    expected: dict[str, tuple[Any, Any]] = {
        "lookups": (len(lookups), 1),
        "cause": (outcome.cause, cell.cause),
        "confirmed beside it": (_confirmed(told) - {cell.cause}, set()),
        "api": (outcome.api, "cgo" if flavour.cgo else "go"),
        "resolver": (lookup.get("resolver"), "glibc" if flavour.cgo else "go"),
        "name": (lookup.get("name"), NAME),
        "status": (lookup.get("status"), cell.status_of(flavour)),
        "goroutine": (goroutine, MAIN_GOROUTINE),
    }
    if result is not None:
        expected["Go's version"] = (result["go"], f"go{flavour.version}")
        has_worked = cell.status == "ok" and cell.cause is None
        expected["what the program got"] = (result["ok"], has_worked)
        if cell.status == "failed":
            expected["error"] = (lookup.get("error", {}).get("message"), result["error"])
    if cell.cause == "connect_after_dns":
        connects = [(line["connect"]["lookup"] or {}).get("name") for line in named]
        expected["lookup of the connect"] = (set(connects), {NAME})
    problems = [f"{what}: {got!r}, not {right!r}" for what, (got, right) in expected.items() if got != right]
    return Outcome(**{**vars(outcome), "problems": tuple(problems)})


def _confirmed(told: list[Line]) -> set[str]:
    return {line["cause"]["id"] for line in told if line["cause"]["confidence"] == "confirmed"}


def _miscounted(stats: dict[str, Any], flavour: Flavour, cells: tuple[Cell, ...]) -> tuple[str, ...]:
    """What of the counters is not exact, or was lost."""
    ends = [cell.status_of(flavour) for cell in cells]
    right = {"started": len(cells), "in_flight": 0}
    right |= {status: ends.count(status) for status in ("ok", "failed", "abandoned")}
    got = {key: stats["lookups"][key] for key in right}
    wrong = [] if got == right else [f"counted {got}, not {right}"]
    return (*wrong, *(f"lost {where}: {count}" for where, count in stats["lost"].items()))
