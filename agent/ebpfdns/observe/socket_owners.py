"""Whose a socket is: the process that has it open, found by its inode number in all of /proc.

Owns: the search, and its limits. Must not know: why somebody asks.

One search answers all questions of one moment: no process is looked at twice.
"""

from __future__ import annotations

import os
import re
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from ebpfdns.observe import proc_files, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

Facts = dict[str, Any]

#: A host with very many descriptors: what was not found by then stays unknown.
BUDGET_S = 0.05
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class OwnerSearch:
    """Goes through the processes once, as far as the questions make it go: `likely` ones first."""

    def __init__(self, likely: Iterable[int] = (), budget_s: float = BUDGET_S) -> None:
        self._likely = tuple(likely)
        self._pids: Iterator[int] | None = None
        self._left_s = budget_s
        self._holders: dict[int, int] = {}  # inode → pid
        self._owners: dict[int, Facts] = {}  # pid → what it is called and does

    def owners(self, inodes: AbstractSet[int]) -> dict[int, Facts]:
        """Inode → {pid, name, state, syscall} of a process that has it open; absent: not found in time."""
        began_s = time.monotonic()
        if self._pids is None:
            self._pids = chain(self._likely, _newest_last())
        while not inodes <= self._holders.keys() and time.monotonic() - began_s < self._left_s:
            pid = next(self._pids, None)
            if pid is None:
                break
            for inode in _sockets_of(pid):
                self._holders.setdefault(inode, pid)
        self._left_s -= time.monotonic() - began_s
        return {inode: self._owner(self._holders[inode]) for inode in inodes & self._holders.keys()}

    def _owner(self, pid: int) -> Facts:
        if pid not in self._owners:
            self._owners[pid] = owner(pid)
        return self._owners[pid]


def owner(pid: int) -> Facts:
    """What a process is called and does: {pid, name, state, syscall} of its first thread."""
    stat = proc_files.text(f"/proc/{pid}/stat")
    name, _, rest = stat.partition(" (")[2].rpartition(") ")
    call = syscalls.parse_call(proc_files.text(f"/proc/{pid}/syscall"))
    return {"pid": pid, "name": name or None, "state": rest[:1] or None, "syscall": call.name}


def _newest_last() -> list[int]:
    """Daemons have started early."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208


def _sockets_of(pid: int) -> set[int]:
    """Inodes of the sockets of a process."""
    directory = f"/proc/{pid}/fd"
    found: set[int] = set()
    try:
        names = os.listdir(directory)  # noqa: PTH208
    except OSError:
        return found
    for name in names:
        try:
            match = _SOCKET.fullmatch(os.readlink(f"{directory}/{name}"))  # noqa: PTH115
        except OSError:
            continue
        if match:
            found.add(int(match[1]))
    return found
