"""For how long a process's cgroup has been out of CPU time, since that is counted.

Owns: cpu.stat of cgroup v1 and v2. Must not know: quotas, or who suffers from them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

V1_ROOTS = ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct")
V2_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_CGROUP = re.compile(r"^(\d+):([^:]*):(.*)$", re.MULTILINE)
_FIELDS = {"throttled_time": 1, "throttled_usec": 1000}


def throttled_ns(pid: int) -> int | None:
    """The counter of its cgroup, summed over the CPUs; None where no controller counts that."""
    try:
        groups = _CGROUP.findall(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))
    except OSError:
        return None
    for _, controllers, path in groups:
        roots = V2_ROOTS if not controllers else V1_ROOTS if "cpu" in controllers.split(",") else ()
        for root in roots:
            found = parse_stat(_read(f"{root}{path}/cpu.stat"))
            if found is not None:
                return found
    return None


def parse_stat(text: str) -> int | None:
    """Nanoseconds in the text of a cpu.stat."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in _FIELDS and value.isascii() and value.isdigit():
            return int(value) * _FIELDS[name]
    return None


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 4096).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
