"""What following costs the daemon that is followed: dnsmasq, systemd-resolved, asked for what they remember.

Owns: the daemons in a sandbox, blocks of load in turn: alone, under probes that do nothing, followed.
Must not know: how a daemon is run (`ebpfdns.lab`), how the table looks.

Who asks is not traced; the agent's target sleeps, and is only configured to ask the daemon. The blocks of a
round come one right after the other, and every second round has them in reverse, so that a drift of the
machine cancels out.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tracers
from table import Row, median, number

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.namespace import Sandbox, end
from ebpfdns.lab.real_daemons import FORWARDER, STUB, Dnsmasq, Resolved, configure_resolved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Block = dict[str, float]
    Round = dict[str, Block]

RATE_PER_S, WINDOW = 5_000, 32
BUDGET = 0.95  # of its throughput at that rate
WAITS = ("poll", "epoll_wait")
UNITS = {"steady_per_s": "{} /s", "fastest_per_s": "{} /s", "us_per_answer": "{} µs when not followed"}
ANSWERS = ServerPlan((topology.SERVER_1,), ({"answer": [topology.WEB], "ttl_s": 86_400},))
DAEMONS = {
    "dnsmasq": Fault(
        "dnsmasq_busy",
        "dnsmasq answers from its memory.",
        (FORWARDER,),
        (ANSWERS, Dnsmasq((topology.SERVER_1,), cache_size=1000)),
    ),
    "systemd-resolved": Fault(
        "resolved_busy",
        "systemd-resolved answers from its memory.",
        (STUB,),
        (ANSWERS, Resolved()),
        prepare=partial(configure_resolved, servers=topology.SERVER_1, Cache="yes"),
    ),
}


def measure(
    programs: dict[str, Path], folder: Path, rounds: int, duration_ms: int
) -> tuple[list[Row], dict[str, list[Round]]]:
    """Rows for each daemon, and the raw figures of every round."""
    rows: list[Row] = []
    raw: dict[str, list[Round]] = {}
    for name, daemon in DAEMONS.items():
        with contextlib.ExitStack() as stack:
            sandbox = stack.enter_context(Sandbox())
            running = stack.enter_context(daemon.setup(sandbox, log=False))
            target = sandbox.popen(["sleep", "3600"])
            stack.callback(end, target)
            load = partial(
                _block, sandbox, programs["wire-glibc"], daemon, running.servers[1].pid, duration_ms
            )
            load()  # from now on it remembers the answer
            arms: dict[str, Callable[[], Block]] = {
                "none": load,
                "empty": partial(_with_empty_probes, folder, target.pid, load),
                "followed": partial(_followed, folder, target.pid, load),
            }
            raw[name] = [_round(arms, is_turned=n % 2 == 1) for n in range(rounds)]
        rows += _rows(name, raw[name])
    return rows, raw


def _round(arms: dict[str, Callable[[], Block]], *, is_turned: bool) -> Round:
    names = sorted(arms, reverse=is_turned)
    return {name: arms[name]() for name in names}


def _with_empty_probes(folder: Path, target_pid: int, load: Callable[[], Block]) -> Block:
    with tracers.empty(folder, target_pid, WAITS):
        return load()


def _followed(folder: Path, target_pid: int, load: Callable[[], Block]) -> Block:
    with tracers.agent(folder, target_pid) as agent:
        block = load()
        lines = [line for _, line in agent.stop()]
    if not any(line.get("target", {}).get("role") == "supporting" for line in lines):
        raise ValueError("the daemon was not followed")
    return block


def _block(sandbox: Sandbox, program: Path, daemon: Fault, pid: int, duration_ms: int) -> Block:
    """As fast as it goes, and at a given rate; the daemon's own processor time at that."""
    fastest = _ask(sandbox, program, daemon, 0, duration_ms)
    before_ns = _ran_ns(pid)
    steady = _ask(sandbox, program, daemon, RATE_PER_S, duration_ms)
    ran_ns = _ran_ns(pid) - before_ns
    return {
        "fastest_per_s": fastest["answered_per_s"],
        "steady_per_s": steady["answered_per_s"],
        "us_per_answer": ran_ns / 1000 / max(steady["answered"], 1),
    }


def _ask(sandbox: Sandbox, program: Path, daemon: Fault, rate_per_s: int, duration_ms: int) -> dict[str, Any]:
    words = ["--server", daemon.nameservers[0], "--name", topology.NAME, "--rate", str(rate_per_s)]
    words += ["--window", str(WINDOW), "--duration-ms", str(duration_ms)]
    process = sandbox.popen([program, *words], stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(process.communicate()[0])
    return found


def _ran_ns(pid: int) -> int:
    """The time that all of its threads have had on a processor."""
    return sum(int(text.split()[0]) for text in _schedstats(pid))


def _schedstats(pid: int) -> Iterator[str]:
    for tid in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - numbers
        yield Path(f"/proc/{pid}/task/{tid}/schedstat").read_text(encoding="ascii")


def _rows(name: str, played: list[Round]) -> list[Row]:
    def ratios(key: str, arm: str) -> list[float]:
        return sorted(figures[arm][key] / figures["none"][key] for figures in played if figures["none"][key])

    def row(what: str, key: str, arm: str = "followed", limit: float | None = None) -> Row:
        found = ratios(key, arm)
        plain = number(median(figures["none"][key] for figures in played))
        spread = (
            f"{number(found[0])} to {number(found[-1])} in {len(found)} pairs; {UNITS[key].format(plain)}"
        )
        return Row(what=what, value=median(found), unit="x", limit=limit, at_least=True, note=spread)

    return [
        row(f"{name} at {RATE_PER_S:,} /s, cached: answers, followed / not", "steady_per_s", limit=BUDGET),
        row("  its CPU time for an answer", "us_per_answer"),
        row("  the same under empty programs on packets and waits", "us_per_answer", "empty"),
        row("  as fast as it can: answers a second, followed / not", "fastest_per_s"),
        row("  the same under empty programs on packets and waits", "fastest_per_s", "empty"),
    ]
