"""What was last said of each open thing, found by its name and by its process.

Owns: that memory. Must not know: how a cause is found, or when it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.correlate.tracker import Name
    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Connect, Hop, Lookup


class Told(NamedTuple):
    """What was last said of an open thing."""

    id: str
    thing: Lookup | Connect
    cause: Cause
    chain: tuple[Hop, ...] = ()


class LastWords:
    """One `Told` for each thing that was told of as open and whose end was not."""

    def __init__(self) -> None:
        self._pids: dict[Name, int] = {}
        self._by_pid: dict[int, dict[Name, Told]] = {}

    def keep(self, name: Name, told: Told) -> None:
        """This is the latest word."""
        self._pids[name] = told.thing.pid
        self._by_pid.setdefault(told.thing.pid, {})[name] = told

    def take(self, name: Name) -> Told | None:
        """The latest word, which is forgotten now; None when nothing was told."""
        pid = self._pids.pop(name, None)
        if pid is None:
            return None
        of_process = self._by_pid[pid]
        told = of_process.pop(name)
        if not of_process:
            del self._by_pid[pid]
        return told

    def of(self, name: Name) -> Told | None:
        """The latest word, which is kept."""
        pid = self._pids.get(name)
        return None if pid is None else self._by_pid[pid].get(name)

    def of_process(self, pid: int) -> Iterable[Told]:
        """All of one process, in the order in which they were first told of."""
        return self._by_pid.get(pid, {}).values()
