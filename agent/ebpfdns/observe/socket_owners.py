"""Whose a socket is: the process that has it open, found by its inode number in all of /proc.

Owns: the search, and its limits. Must not know: why somebody asks.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from ebpfdns.observe import proc_files, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

Facts = dict[str, Any]

#: A host with very many descriptors: what was not found by then stays unknown.
BUDGET_S = 0.05
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def owners(inodes: AbstractSet[int], first: Iterable[int] = ()) -> dict[int, Facts]:
    """Inode → {pid, name, state, syscall} of a process that has it open; absent: not found in time.

    `first`: pids to look at before all others.
    """
    wanted = set(inodes)
    found: dict[int, Facts] = {}
    give_up_at = time.monotonic() + BUDGET_S
    for pid in (*first, *_newest_last()):
        if not wanted or time.monotonic() > give_up_at:
            break
        here = _sockets_of(pid) & wanted
        if here:
            facts = owner(pid)
            found |= dict.fromkeys(here, facts)
            wanted -= here
    return found


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
