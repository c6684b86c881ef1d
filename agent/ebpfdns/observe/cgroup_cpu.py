"""How much CPU time a process's cgroup lets it have, and whether it is frozen: cgroup v2 and v1.

Owns: cpu.stat, cpu.max, cpu.cfs_*_us, cgroup.events and freezer.state of the cgroup of a process, and the
earlier reading that a rate is taken against. Must not know: what a process does with its time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ebpfdns.observe import cgroups, proc_files

Facts = dict[str, Any]

NS_PER_MS = 1_000_000
#: A rate over less is noise; a reading this old says nothing of now.
SHORTEST_NS, LONGEST_NS = 200 * NS_PER_MS, 20_000 * NS_PER_MS
FRESH_NS = 2_000 * NS_PER_MS
MAX_KEPT = 4096
CONTROLLERS = ("cpu", "freezer", "")  # "": cgroup v2


class CpuWatch:
    """Throttling between two looks at a process; ask often enough while something of it is open."""

    def __init__(self) -> None:
        self._earlier: dict[int, tuple[int, int]] = {}  # pid → (throttled_ns, at_ns)
        self._kept_ns: dict[int, int] = {}  # pid → when it was read to be kept fresh
        self._mountinfo: str | None = None

    def facts(self, pid: int) -> Facts:
        """{frozen, cpu: {throttled_ms, interval_ms, quota_us, period_us} or None}; unknown parts: None."""
        if self._mountinfo is None:
            self._mountinfo = proc_files.text("/proc/self/mountinfo")
        found = directories(proc_files.text(f"/proc/{pid}/cgroup"), self._mountinfo)
        return {"frozen": is_frozen(found), "cpu": self._cpu(pid, found.get("cpu") or found.get(""))}

    def keep_fresh(self, pid: int) -> None:
        """Read unless that was done lately, so that a look at any time has something to compare with."""
        now_ns = time.monotonic_ns()
        if now_ns - self._kept_ns.get(pid, -FRESH_NS) < FRESH_NS:
            return
        if len(self._kept_ns) >= MAX_KEPT:  # most of them have ended long ago
            self._kept_ns.clear()
            self._earlier.clear()
        self._kept_ns[pid] = now_ns
        self.facts(pid)

    def _cpu(self, pid: int, directory: Path | None) -> Facts | None:
        throttled_ns = (
            None if directory is None else parse_throttled(proc_files.text(f"{directory}/cpu.stat"))
        )
        if directory is None or throttled_ns is None:
            return None
        now_ns = time.monotonic_ns()
        before_ns, at_ns = self._earlier.get(pid, (throttled_ns, now_ns))
        interval_ns = now_ns - at_ns
        if interval_ns >= SHORTEST_NS or pid not in self._earlier:
            self._earlier[pid] = (throttled_ns, now_ns)
        is_rate = SHORTEST_NS <= interval_ns <= LONGEST_NS
        quota_us, period_us = _quota(directory)
        return {
            "throttled_ms": (throttled_ns - before_ns) / NS_PER_MS if is_rate else None,
            "interval_ms": interval_ns / NS_PER_MS if is_rate else None,
            "quota_us": quota_us,
            "period_us": period_us,
        }


def throttled_ns(pid: int) -> int | None:
    """How long its cgroup has been out of CPU time, since that is counted; None where nothing counts it."""
    found = directories(proc_files.text(f"/proc/{pid}/cgroup"), proc_files.text("/proc/self/mountinfo"))
    directory = found.get("cpu") or found.get("")
    return parse_throttled(proc_files.text(f"{directory}/cpu.stat")) if directory else None


def directories(cgroup_text: str, mountinfo: str) -> dict[str, Path]:
    """Controller (of CONTROLLERS) → the process's directory in its tree. Only those that exist."""
    found: dict[str, Path] = {}
    for line in cgroup_text.splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in set(names.split(",")).intersection(CONTROLLERS):
            for place, top in cgroups.controller_mounts(mountinfo, name):
                directory = Path(place) / _below(top, path)
                if directory.is_dir():
                    found.setdefault(name, directory)
    return found


def is_frozen(found: dict[str, Path]) -> bool | None:
    """Whether the kernel holds the whole cgroup; None when that cannot be read."""
    state = proc_files.text(f"{found['freezer']}/freezer.state").strip() if "freezer" in found else ""
    if state:
        return state != "THAWED"
    events = proc_files.text(f"{found['']}/cgroup.events").splitlines() if "" in found else []
    return "frozen 1" in events if events else None


def parse_throttled(text: str) -> int | None:
    """Nanoseconds of waiting for the next period, of a cpu.stat: v2 counts microseconds, v1 nanoseconds."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in UNITS_NS and value.isdigit():
            return int(value) * UNITS_NS[name]
    return None


UNITS_NS = {"throttled_usec": 1000, "throttled_time": 1}


def _quota(directory: Path) -> tuple[int | None, int | None]:
    """Microseconds a period, and the period; (None, None) without a limit."""
    words = proc_files.text(f"{directory}/cpu.max").split()
    if not words:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [proc_files.text(f"{directory}/{name}").strip() for name in names]
    if len(words) != 2 or not all(word.isdigit() for word in words):  # noqa: PLR2004 - "max" or -1: no limit
        return None, None
    return int(words[0]), int(words[1])


def _below(top: str, path: str) -> str:
    """A cgroup's path relative to what is mounted."""
    return path.removeprefix(top if top != "/" else "").lstrip("/")
