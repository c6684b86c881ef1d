"""Threads that are away from their event loop, and when each absence is told again: as its length doubles.

Owns: that memory. Must not know: clocks, lines, what the thread does instead.
An absence is named by its thread and the moment at which it began, so nothing has to tell that it is over.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Absence:
    """One that has been told of."""

    return_ns: int
    pid: int
    updates: int = 0
    next_ns: int = 0  # the length at which it is told again


class Absences:
    """The latest absence of each thread."""

    def __init__(self, stuck_after_ns: int) -> None:
        self._stuck_after_ns = max(stuck_after_ns, 1)
        self._known: dict[int, Absence] = {}

    def is_due(self, key: int, return_ns: int, now_ns: int) -> bool:
        """Whether a thread that came back last at `return_ns` should be told of."""
        known = self._known.get(key)
        if known is None or known.return_ns != return_ns:
            return now_ns - return_ns >= self._stuck_after_ns
        return now_ns - return_ns >= known.next_ns

    def tell(self, key: int, pid: int, return_ns: int, now_ns: int) -> int | None:
        """It is told of now: 1 at the first time, then 2, 3 …; None when it is not due."""
        if not self.is_due(key, return_ns, now_ns):
            return None
        known = self._known.get(key)
        if known is None or known.return_ns != return_ns:
            known = self._known[key] = Absence(return_ns, pid)
        known.updates += 1
        known.next_ns = max(known.next_ns, self._stuck_after_ns)
        while known.next_ns <= now_ns - return_ns:
            known.next_ns *= 2
        return known.updates

    def forget(self, pid: int) -> None:
        """The process is not traced any more."""
        self._known = {key: known for key, known in self._known.items() if known.pid != pid}
