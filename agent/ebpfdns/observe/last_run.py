"""For how long a thread has been asleep: the age of the wait it sits in.

Owns: `se.exec_start` of /proc/TID/sched (kernels with CONFIG_SCHED_DEBUG), and the clock it is read against.
Must not know: what a thread waits for.

The kernel notes when a thread last ran by the clock of the CPU it ran on, which leaves out what interrupts
and the hypervisor took: CPUs differ by that, and a difference on one CPU is never longer than it was. So
"now" is asked of that very CPU, by running there for a moment. What comes out is a lower bound, some
milliseconds short.
"""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from typing import TYPE_CHECKING

from ebpfdns.observe import proc_files

if TYPE_CHECKING:
    from collections.abc import Iterable

NS_PER_MS = 1_000_000
_EXEC_START = re.compile(rb"^se\.exec_start\s*:\s*(\d+)\.(\d+)", re.MULTILINE)
_CPU_AFTER_NAME = 36  # of the fields behind the name in /proc/TID/stat


def asleep_ns(pid: int, tids: Iterable[int]) -> dict[int, int]:
    """Thread → for how long it has not run, at the least; not in it: one that runs, or tells nothing."""
    by_cpu: dict[int, dict[int, int]] = defaultdict(dict)
    for tid in tids:
        ran_ns = _last_run_ns(f"/proc/{pid}/task/{tid}/sched")
        fields = proc_files.raw(f"/proc/{pid}/task/{tid}/stat").rpartition(b") ")[2].split()
        if ran_ns and len(fields) > _CPU_AFTER_NAME and fields[0] not in {b"R", b"Z", b"X"}:
            by_cpu[int(fields[_CPU_AFTER_NAME])][tid] = ran_ns
    found: dict[int, int] = {}
    for cpu, ran in by_cpu.items():
        now_ns = _now_of(cpu)
        found |= {tid: now_ns - ran_ns for tid, ran_ns in ran.items() if now_ns > ran_ns}
    return found


def _now_of(cpu: int) -> int:
    """This CPU's clock; 0 where this thread may not run."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError:
        return 0
    try:
        return _last_run_ns(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/sched")
    finally:
        os.sched_setaffinity(0, allowed)


def _last_run_ns(path: str) -> int:
    """`se.exec_start`; 0 when it is not told."""
    match = _EXEC_START.search(proc_files.raw(path))
    return int(match[1]) * NS_PER_MS + int(match[2].ljust(6, b"0")[:6]) if match else 0
