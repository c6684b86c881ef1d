"""One fault, some programs, one agent over all of them: played to the end, and what everybody says about it.

Owns: the order: servers, programs, agent, go, the end. Must not know: what is expected.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import agent
import pytest
from agent import Agent
from program import Program

from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from ebpfdns.lab.faults import Fault

    Line = dict[str, Any]

SHORT = "timeout:1 attempts:1"  # of resolv.conf: the slowest lookup of one server takes a second
SOON = "300ms"
TRIES = 3
#: A probe that the kernel passed over because another one, perhaps of another agent, ran on that CPU: told.
MISSED = "kernel_missed"


@dataclass(frozen=True)
class Played:
    """What the agent, the programs (by the names the test gave them) and the servers have said."""

    lines: list[Line]
    results: dict[str, dict[str, Any]]
    pids: dict[str, int]
    asked: list[dict[str, Any]]

    @property
    def stats(self) -> dict[str, Any]:
        """The agent's last counters."""
        found: dict[str, Any] = self.lines[-1]["stats"]
        return found

    def of(self, event: str, name: str | None = None) -> list[Line]:
        """Lines of one kind, perhaps of one program only."""
        return agent.of(self.lines, event, None if name is None else self.pids[name])

    def only(self, event: str, name: str | None = None) -> Line:
        """The one line of this kind."""
        return agent.only(self.lines, event, None if name is None else self.pids[name])


def play(
    fault: Fault,
    programs: Mapping[str, Sequence[object]],
    *words: object,
    options: str = SHORT,
    log: bool = True,
) -> Played:
    """Run it in a sandbox of its own, until all have ended; again when the kernel passed over probes."""
    for _ in range(TRIES):
        played = _play(fault, programs, *words, options=options, log=log)
        if MISSED not in played.stats["lost"]:
            break
    return played


def _play(
    fault: Fault, programs: Mapping[str, Sequence[object]], *words: object, options: str, log: bool
) -> Played:
    with Sandbox() as sandbox, fault.setup(sandbox, options=options, log=log) as running:
        started = {name: Program(sandbox, argv) for name, argv in programs.items()}
        pids = [word for program in started.values() for word in ("--pid", program.pid)]
        with Agent("attach", *pids, "--stuck-after", SOON, *words) as observer:
            for program in started.values():
                program.go()
            results = {name: program.result() for name, program in started.items()}
            lines = observer.finish()
        pids_by_name = {name: program.pid for name, program in started.items()}
        return Played(lines, results, pids_by_name, running.queries())


class ProbesMissedError(AssertionError):
    """The kernel passed over probes: what was seen is less sure than what the test is about."""


def whole(lines: list[Line]) -> list[Line]:
    """The lines of a stream in which nothing was passed over."""
    if MISSED in lines[-1]["stats"]["lost"]:
        raise ProbesMissedError(lines[-1]["stats"]["lost"])
    return lines


def again(test: Callable[..., None]) -> Callable[..., None]:
    """Play the test again when the kernel passed over probes, for another agent ran beside it."""

    @functools.wraps(test)
    def tried(*args: Any, **fixtures: Any) -> None:
        for _ in range(TRIES - 1):
            try:
                return test(*args, **fixtures)
            except ProbesMissedError:
                continue
        return test(*args, **fixtures)

    return tried


def outcome(playing: Future[Played]) -> Played:
    """What was played; when it failed, each test that needs it says so in one line."""
    if error := playing.exception():
        pytest.fail(f"{type(error).__name__}: {error}", pytrace=False)
    return playing.result()
