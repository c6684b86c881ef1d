"""What ebpfdns does under load: does it count exactly, does it lose nothing, is it in time.

Owns: the workloads in a sandbox with an agent attached, and what its lines must say about each.
Must not know: what the probes cost, how the table looks.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING, Any

import tracers
from table import Row

from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

Lines = list[tuple[int, dict[str, Any]]]

NUMERIC_COUNT, EXACT_COUNT = 100_000, 10_007
STUCK_AFTER_S, LATE_BUDGET_MS, LATE_BUDGET_THREADS = 1.0, 250.0, 1000
#: Long enough that all are still stuck when the last one has been reported.
STUCK_OPTIONS = "timeout:8 attempts:1"
RATES_PER_S = (5_000, 10_000, 20_000, 30_000)
RATE_BUDGET = 20_000.0
UNLIMITED = "fastest"


def _play(
    folder: Path, fault: str, argv: list[Any], *agent_options: str, resolver_options: str = ""
) -> tuple[dict[str, Any], Lines]:
    """Run a workload with an agent attached: what it says of itself at its end, and the agent's lines."""
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox())
        stack.enter_context(FAULTS[fault].setup(sandbox, options=resolver_options, log=False))
        ready_file, go_file = sandbox.new_file("ready"), sandbox.new_file("go")
        command = [*argv, "--ready-file", ready_file, "--go-file", go_file]
        process = sandbox.popen(command, ready_file=ready_file, stdout=subprocess.PIPE, text=True)
        agent = stack.enter_context(tracers.agent(folder, process.pid, *agent_options))
        go_file.touch()
        lines = agent.rest()
        return json.loads(process.communicate()[0]), lines


def counts(programs: dict[str, Path], folder: Path, scale: float) -> list[Row]:
    """Healthy lookups: each is counted, none is told."""
    rows = []
    numeric = ["--numeric-host", "--name", "192.0.2.1", "--family", "inet"]
    resolved = ["--name", "www.lab.test", "--family", "inet"]
    for what, arguments, full in (
        ("numeric", numeric, NUMERIC_COUNT),
        ("resolved", resolved, EXACT_COUNT),
    ):
        count = max(1, int(full * scale))
        argv = [programs["lookup-glibc"], *arguments, "--threads", "0", "--count", str(count)]
        said, lines = _play(folder, "healthy", argv)
        stats = _stats(lines)
        told = sum(line["event"] not in ("target", "stats") for _, line in lines)
        title = f"{count:,} healthy lookups ({what})"
        started = stats["lookups"]["started"]
        rows += [
            Row(what=f"{title}: lines about them", value=told, limit=0),
            Row(
                what="  miscounted",
                value=abs(started - count) + abs(stats["lookups"]["ok"] - said["ok"]),
                limit=0,
            ),
            Row(what="  lost", value=sum(stats["lost"].values()), limit=0),
        ]
    return rows


def stuck_at_once(programs: dict[str, Path], folder: Path, threads: int) -> list[Row]:
    """Many lookups stuck at the same time: each is reported, none late."""
    argv = [programs["lookup-glibc"], "--name", "stuck.lab.test", "--unique", "--family", "inet"]
    argv += ["--threads", str(threads)]
    stuck_after = f"{STUCK_AFTER_S:g}s"
    _, lines = _play(folder, "silent", argv, "--stuck-after", stuck_after, resolver_options=STUCK_OPTIONS)
    first = [
        (at_ns, line)
        for at_ns, line in lines
        if line["event"] == "lookup_stuck" and line["lookup"]["update"] == 1
    ]
    late_ms = [_late_ms(at_ns, line) for at_ns, line in first]
    reported = {line["lookup"]["id"] for _, line in first}
    closed = {line["lookup"]["id"] for _, line in lines if line["event"] == "lookup"}
    lost = sum(_stats(lines)["lost"].values())
    title = f"{threads:,} stuck at once"
    return [
        Row(
            what=f"{title}: the latest first line, after its time",
            value=max(late_ms, default=None),
            unit="ms",
            limit=LATE_BUDGET_MS if threads <= LATE_BUDGET_THREADS else None,
        ),
        Row(what="  not reported", value=threads - len(reported), limit=0),
        Row(what="  never closed", value=len(reported - closed), limit=0),
        Row(what="  lost", value=lost, limit=0),
    ]


def _late_ms(at_ns: int, line: dict[str, Any]) -> float:
    """How long after the lookup's age had reached the threshold we had its line in hand."""
    started_s = datetime.fromisoformat(line["lookup"]["started"]).timestamp()
    return (at_ns / 1e9 - started_s - STUCK_AFTER_S) * 1000


def query_rates(
    programs: dict[str, Path], folder: Path, duration_ms: int
) -> tuple[list[Row], list[dict[str, Any]]]:
    """DNS traffic, faster and faster, until something is missing; each step's raw figures too."""
    steps = [_query_rate(programs, folder, rate, duration_ms) for rate in (*RATES_PER_S, 0)]
    without_loss = [step for step in steps if not step["missing"]]
    with_loss = [step for step in steps if step["missing"]]
    best = max((step["reached_per_s"] for step in without_loss), default=0.0)
    note = "the server's own limit: nothing was lost at any rate"
    if with_loss:
        lossy = min(with_loss, key=lambda step: float(step["reached_per_s"]))
        note = f"{lossy['missing']} of {lossy['sent']} missing at {lossy['reached_per_s']:,.0f}/s"
    row = Row(
        what="DNS queries seen without loss",
        value=best,
        unit="/s",
        limit=RATE_BUDGET,
        at_least=True,
        note=note,
    )
    untold = sum(max(0, step["missing"] - step["lost"]) for step in steps)
    return [row, Row(what="  missing and not told", value=untold, limit=0)], steps


def _query_rate(programs: dict[str, Path], folder: Path, rate_per_s: int, duration_ms: int) -> dict[str, Any]:
    """One rate (0: as fast as it goes): what was sent and answered, and what the agent counted of it."""
    argv = [programs["wire-glibc"], "--rate", str(rate_per_s), "--duration-ms", str(duration_ms), "--unique"]
    said, lines = _play(folder, "healthy", argv)
    stats = _stats(lines)
    sent, answered = stats["queries"]["sent"], stats["queries"]["answered"]
    return {
        "asked_per_s": rate_per_s or UNLIMITED,
        "reached_per_s": said["answered_per_s"],
        "sent": said["sent"],
        "answered": said["answered"],
        "seen_sent": sent,
        "seen_answered": answered,
        "missing": abs(said["sent"] - sent) + abs(said["answered"] - answered),
        "lost": sum(stats["lost"].values()),
    }


def _stats(lines: Lines) -> dict[str, Any]:
    """The last stats line, which the agent writes when it ends."""
    found: list[dict[str, Any]] = [line["stats"] for _, line in lines if line["event"] == "stats"]
    return found[-1]
