"""Very many lookups of a Go program under trace: goroutines whose stacks grow, while its collector runs.

Owns: the run, and what must come of it: no crash, exact counts, nothing lost.
Must not know: how much is enough.

Most names are in the hosts file, so that the program is what is busy; some ask a server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agent import Agent
from play import SHORT, TRIES
from program import Program

from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox, plain_environment
from ebpfdns.lab.topology import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gotarget import Flavour

MISSED = "kernel_missed"
FRAMES = 251  # below the deepest lookup: stacks of 2 KiB to 32 KiB
ASKED = 97  # every so-manieth lookup asks the server


class Load(NamedTuple):
    """How much."""

    goroutines: int
    lookups: int


FULL = Load(1_009, 100_003)


class Survived(NamedTuple):
    """What came of it; `problems` is empty when all is well."""

    stats: dict[str, Any]
    took_ms: float
    problems: tuple[str, ...]


def survive(program: Path, flavour: Flavour, load: Load) -> Survived:
    """One run; again when the kernel passed over probes."""
    for _ in range(TRIES):
        survived = _survive(program, flavour, load)
        if MISSED not in survived.stats["lost"]:
            break
    return survived


def _survive(program: Path, flavour: Flavour, load: Load) -> Survived:
    environment = plain_environment() | ({"GODEBUG": "netdns=cgo"} if flavour.cgo else {})
    words = ["--way", "many", "--goroutines", load.goroutines, "--lookups", load.lookups]
    words += ["--depth", FRAMES, "--asked", ASKED, "--name", NAME]
    with Sandbox() as sandbox, FAULTS["healthy"].setup(sandbox, options=SHORT, log=False):
        running = Program(sandbox, [program, *words], env=environment)
        waits = ("--stuck-after", "30s", "--slow-after", "30s")  # a busy machine is no fault
        with Agent("attach", "--pid", running.pid, *waits) as observer:
            running.go()
            result = running.result()  # it has not crashed
            lines = observer.finish()
    stats = lines[-1]["stats"]
    return Survived(stats, result["lookup_ms"], tuple(_problems(stats, result, load)))


def _problems(stats: dict[str, Any], result: dict[str, Any], load: Load) -> Iterator[str]:
    if (result["lookups"], result["succeeded"]) != (load.lookups, load.lookups):
        yield f"the program did {result['lookups']}, {result['succeeded']} well: {result.get('error')}"
    counts = {key: stats["lookups"][key] for key in ("started", "ok", "in_flight")}
    right = {"started": load.lookups, "ok": load.lookups, "in_flight": 0}
    if counts != right:
        yield f"counted {counts}, not {right}"
    yield from (f"lost {where}: {count}" for where, count in stats["lost"].items())
