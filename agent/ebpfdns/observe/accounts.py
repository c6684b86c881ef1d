"""Totals of a session: what was lost at each stage, and what the agent itself costs.

Owns: which counter stands for which loss, and the agent's own figures. Must not know: lines, or when to ask.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfdns.correlate.losses import KERNEL_STAGES

if TYPE_CHECKING:
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.recording import Recorder

NS_PER_MS = 1_000_000


def loss_totals(kernel: Kernel, dropped_lines: int, recorder: Recorder | None) -> dict[str, int]:
    """Stage → how much was lost since the start; stages without a loss are absent."""
    counts = kernel.maps.counters()
    totals = {stage: counts[index] for stage, index in KERNEL_STAGES.items()}
    totals["kernel_missed"] = kernel.missed_runs()
    totals["output"] = dropped_lines
    totals["recording"] = 0 if recorder is None else recorder.lost
    return {stage: total for stage, total in totals.items() if total}


def own_cost(kernel: Kernel) -> dict[str, Any]:
    """`agent` of a stats line. What this kernel does not tell is null."""
    run_time = kernel.run_time()
    return {
        "cpu_ms": round(time.process_time_ns() / NS_PER_MS, 3),
        "rss_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "bpf": {
            "run_ms": None if run_time is None else round(run_time[0] / NS_PER_MS, 3),
            "runs": None if run_time is None else run_time[1],
            "map_bytes": kernel.maps.map_bytes(),
        },
    }
