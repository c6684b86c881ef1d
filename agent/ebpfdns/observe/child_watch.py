"""Lookups in children of the targets that are no targets themselves: found by looking, now and then.

Owns: which threads of which children are in a lookup, and whether each is in it still.
Must not know: lines, causes. Nothing of a child is traced: only /proc and its sockets are read.

A program that hangs often only waits for its child: `sh -c`, `go test`, a build. Without --children the child
is not traced, so this is all that can be said of it. It is told of once it was seen waiting twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.correlate import items
from ebpfdns.correlate.children import CHILD_BIT
from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe import proc_files, processes, resolver_waits, snapshot, syscalls
from ebpfdns.observe.target import identity_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MS = 1_000_000
SHORTEST_CADENCE_NS, LONGEST_CADENCE_NS = 100 * MS, 1000 * MS
MAX_CHILDREN = 32
MAX_THREADS = 64
WAITS_FOR_CHILD = ("wait4", "waitid")


@dataclass(slots=True)
class Held:
    """A thread of a child that is in a lookup."""

    key: int
    parent_pid: int  # the target
    pid: int
    tid: int
    found_ns: int
    process: dict[str, Any]
    facts: dict[str, Any]
    seen_ns: int
    was_told: bool = False


class ChildWatch:
    """All children of one session's targets."""

    def __init__(self, dns_ports: frozenset[int], stuck_after_ns: int) -> None:
        self._ports = dns_ports
        self.cadence_ns = min(max(stuck_after_ns // 2, SHORTEST_CADENCE_NS), LONGEST_CADENCE_NS)
        self._held: dict[int, Held] = {}

    def look(self, target_pids: Iterable[int], now_ns: int, wall_ns: int) -> items.Children | None:
        """What is open in children, and what has ended since the last look; None when there is neither."""
        targets = set(target_pids)
        seen: dict[int, Held] = {}
        for parent_pid in targets:
            below = processes.descendants(parent_pid)[:MAX_CHILDREN]
            for pid in [pid for pid in below if pid not in targets]:
                seen |= {held.key: held for held in self._waiting(parent_pid, pid, now_ns)}
        ended = [held for key, held in self._held.items() if key not in seen]
        # What is seen for the first time may be a healthy lookup: that of the next look is not.
        due = [held for key, held in seen.items() if key in self._held]
        self._held = seen
        told = [held for held in ended if held.was_told]
        for held in due:
            held.was_told = True
        if not due and not told:
            return None
        return items.Children(
            now_ns=now_ns,
            wall_ns=wall_ns,
            lookups=[_told(held) for held in due],
            ended=[_told(held) for held in told],
        )

    def _waiting(self, parent_pid: int, pid: int, now_ns: int) -> Iterator[Held]:
        """The threads of one child that are in a lookup now."""
        places = {tid: _call(pid, tid) for tid in processes.threads(pid)[:MAX_THREADS]}
        tids = [tid for tid, call in places.items() if call in resolver_waits.WAITS]
        for tid, facts in (snapshot.thread_snapshots(pid, tids) if tids else {}).items():
            wait = resolver_waits.resolver_wait(facts, self._ports)
            if wait is None:
                continue
            key = pid << 32 | tid | CHILD_BIT
            known = self._held.get(key)
            facts["resolver_wait"] = {"kind": wait.kind, "fds": list(wait.fds)}
            if known is not None:
                known.facts, known.seen_ns = facts, now_ns
                yield known
            elif (process := _identity(pid)) is not None:
                yield Held(key, parent_pid, pid, tid, now_ns, process, facts, now_ns)


def _identity(pid: int) -> dict[str, Any] | None:
    """Who the child is; None when it is gone."""
    try:
        return identity_of(processes.read_process(pid))
    except (NoSuchTargetError, ProcessLookupError):
        return None


def _call(pid: int, tid: int) -> str | None:
    return syscalls.parse_call(proc_files.syscall(pid, tid)).name


def _wait_of(pid: int) -> str | None:
    """The call in which any of its threads waits for a child, as Go's do; else that of its first one."""
    calls = [_call(pid, tid) for tid in processes.threads(pid)[:MAX_THREADS]]
    return next((call for call in calls if call in WAITS_FOR_CHILD), _call(pid, pid))


def _told(held: Held) -> items.ChildLookup:
    parent = proc_files.text(f"/proc/{held.parent_pid}/stat").partition(" (")[2].rpartition(") ")[0]
    return items.ChildLookup(
        key=held.key,
        parent_pid=held.parent_pid,
        parent_name=parent or None,
        parent_syscall=_wait_of(held.parent_pid),
        pid=held.pid,
        tid=held.tid,
        found_ns=held.found_ns,
        seen_ns=held.seen_ns,
        process=held.process,
        thread=held.facts,
    )
