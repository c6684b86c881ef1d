"""What ebpfdns itself takes: time to start, memory, idle processor time; and how fast it writes lines.

Owns: reading those off a running agent, and driving the formatting and writing of lines alone.
Must not know: what the probes cost others.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tracers
from table import Row, median

from ebpfdns.publish import lines
from ebpfdns.publish.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_BUDGET_MS, RESIDENT_BUDGET_MB, ANONYMOUS_BUDGET_MB = 500.0, 130.0, 45.0
MAPS_BUDGET_MIB, IDLE_BUDGET_PERCENT, LINES_BUDGET = 16.0, 0.5, 50_000.0
BATCH = 64  # lines that one scan would hand over
BATCHES_BEFORE_FLUSH = 16
FLUSH_DEADLINE_S = 30.0


def measure(target_pid: int, folder: Path, starts: int, idle_s: float) -> list[Row]:
    """Start the agent a few times, then watch one do nothing."""
    ready_ms = []
    for _ in range(starts):
        with tracers.agent(folder, target_pid) as agent:
            ready_ms.append(agent.ready_ms)
    with tracers.agent(folder, target_pid) as agent:
        pid = agent.process.pid
        before_ns = _cpu_ns(pid)
        _let_time_pass(idle_s, pid)
        idle_percent = (_cpu_ns(pid) - before_ns) / 1e9 / idle_s * 100
        memory_kb = _memory_kb(pid)
        stats = next(line["stats"] for _, line in reversed(agent.stop()) if line["event"] == "stats")
    map_bytes = stats["agent"]["bpf"]["map_bytes"]
    return [
        Row(what="start to ready, warm", value=median(ready_ms), unit="ms", limit=READY_BUDGET_MS),
        Row(what="memory, resident", value=memory_kb["Rss"] / 1000, unit="MB", limit=RESIDENT_BUDGET_MB),
        Row(
            what="memory, anonymous",
            value=memory_kb["Anonymous"] / 1000,
            unit="MB",
            limit=ANONYMOUS_BUDGET_MB,
        ),
        Row(
            what="BPF maps",
            value=None if map_bytes is None else map_bytes / (1 << 20),
            unit="MiB",
            limit=MAPS_BUDGET_MIB,
        ),
        Row(what="idle CPU", value=idle_percent, unit="% of a core", limit=IDLE_BUDGET_PERCENT),
    ]


def line_rate(count: int) -> list[Row]:
    """Format stuck lookups and write them to a pipe that a program reads."""
    read_fd, write_fd = os.pipe()
    reader = subprocess.Popen(["wc", "-l"], stdin=read_fd, stdout=subprocess.PIPE, text=True)
    os.close(read_fd)
    output = Output.open(f"/proc/self/fd/{write_fd}")
    os.close(write_fd)
    started_ns = time.monotonic_ns()
    unwritten = 0
    for number, batch in enumerate(_batches(count), start=1):
        output.write_lines(list(map(lines.line, batch)))
        if (
            number % BATCHES_BEFORE_FLUSH == 0
        ):  # a rate that holds: what cannot be kept up with would be dropped
            unwritten += output.flush(FLUSH_DEADLINE_S)
    unwritten += output.flush(FLUSH_DEADLINE_S)
    took_s = (time.monotonic_ns() - started_ns) / 1e9
    output.close()
    received = int(reader.communicate()[0])
    return [
        Row(
            what="lines formatted and written",
            value=received / took_s,
            unit="/s",
            limit=LINES_BUDGET,
            at_least=True,
        ),
        Row(what="  not written", value=max(count - received, unwritten), limit=0),
    ]


def _batches(count: int) -> Iterator[list[dict[str, Any]]]:
    """Different events, as a scan would make them."""
    for first in range(0, count, BATCH):
        yield [_event(number) for number in range(first, min(first + BATCH, count))]


def _event(number: int) -> dict[str, Any]:
    """A stuck lookup of usual size, no two alike."""
    waited_ms = 1000 + number / 1000
    server = {"address": "192.0.2.53", "port": 53}
    query: dict[str, Any] = {
        "name": f"n{number}.lab.test.",
        "type": "A",
        "id": number & 0xFFFF,
        "server": server,
    }
    query |= {"network": {"transport": "udp"}, "encrypted": None, "attempt": 1, "sent_ms": 0.4}
    query |= {"reply_ms": None, "rcode": None, "truncated": False, "state": "waiting"}
    lookup: dict[str, Any] = {
        "id": f"4242-{number}",
        "name": f"n{number}.lab.test",
        "api": "getaddrinfo",
        "resolver": "glibc",
    }
    lookup |= {"status": "in_flight", "started": "2026-03-02T09:14:03.511201Z", "elapsed_ms": waited_ms}
    lookup |= {"update": 1, "queries": [query, {**query, "type": "AAAA"}]}
    evidence: list[dict[str, Any]] = [
        {
            "fact": "no_reply",
            "text": f"192.0.2.53 has not answered for {waited_ms} ms",
            "waited_ms": waited_ms,
        }
    ]
    return {
        "v": 1,
        "ts": lines.rfc3339(1_772_442_843_000_000_000 + number * 1000),
        "event": "lookup_stuck",
        "message": f"lookup of n{number}.lab.test in flight for {waited_ms} ms: no server answers",
        "host": {"name": "bench"},
        "process": {"pid": 4242, "executable": {"name": "bench", "path": "/usr/bin/bench"}},
        "thread": {"id": number, "name": "worker"},
        "lookup": lookup,
        "cause": {
            "id": "ns_silent",
            "confidence": "confirmed",
            "summary": "No server answers.",
            "evidence": evidence,
        },
        "chain": [],
    }


def _memory_kb(pid: int) -> dict[str, int]:
    """What the kernel sums up about a process's memory."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in rollup}


def _cpu_ns(pid: int) -> int:
    """Time on a processor, all threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads)


def _let_time_pass(seconds: float, pid: int) -> None:
    """Return when the time has passed; raise when the agent ends before."""
    process_fd = os.pidfd_open(pid)
    try:
        ended, _, _ = select.select([process_fd], [], [], seconds)
    finally:
        os.close(process_fd)
    if ended:
        raise RuntimeError("the agent ended while it was to be idle")
