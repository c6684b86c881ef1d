"""The state machine: which lookups and connects are stuck, when each is told again, how each ends.

Owns: identity (one id for all lines about a thing), the doubling of intervals, and "ended exactly once".
Must not know: bytes, causes, JSON, clocks: time comes in as an argument.

    unknown ──(open for stuck_after)──► stuck, update 1 ──(age doubles)──► update 2, 3 …
       │                                   │  │
       │(end told by the kernel)           │  └─(not open any more, and no end told, twice)──► lost
       ▼                                   ▼(end told)
     ended                               ended

A thing is named by (kind, key, start_ns): keys are reused, a start time with its key is not. The end of a
thing that was never stuck gets an id of its own; a second end of the same thing is counted, and not told.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Literal

Kind = Literal["lookup", "connect"]
Name = tuple[Kind, int, int]

#: Ended things that are remembered, so that a late sighting of one does not open it again.
REMEMBERED = 8192
STRIKES = 2


@dataclass(slots=True)
class Tracked:
    """One thing that has been told of while open."""

    id: str
    name: Name
    pid: int
    started_wall_ns: int
    updates: int = 0
    next_age_ns: int = 0
    strikes: int = 0


class Tracker:
    """All that is open and was told of."""

    def __init__(self, stuck_after_ns: int) -> None:
        self._stuck_after_ns = stuck_after_ns
        self._tracked: dict[Name, Tracked] = {}
        self._numbers: Counter[int] = Counter()
        self._ended: OrderedDict[Name, None] = OrderedDict()
        self.stuck: Counter[Kind] = Counter()
        self.ended_twice = 0

    def is_due(self, name: Name, now_ns: int) -> bool:
        """Whether an open thing should be told of now."""
        if name in self._ended:
            return False
        tracked = self._tracked.get(name)
        threshold_ns = tracked.next_age_ns if tracked else self._stuck_after_ns
        return now_ns - name[2] >= threshold_ns

    def next_due_ns(self, name: Name) -> int:
        """When an open thing should be told of next."""
        tracked = self._tracked.get(name)
        return name[2] + (tracked.next_age_ns if tracked else self._stuck_after_ns)

    def is_open(self, name: Name, pid: int, now_ns: int, wall_ns: int) -> Tracked | None:
        """A thing was seen open: the tracked thing when a line is due, else None."""
        if not self.is_due(name, now_ns):
            return None
        tracked = self._tracked.get(name)
        if tracked is None:
            tracked = Tracked(self.new_id(name[0], pid), name, pid, wall_ns - (now_ns - name[2]))
            self._tracked[name] = tracked
            self.stuck[name[0]] += 1
        age_ns = now_ns - name[2]
        tracked.updates += 1
        tracked.strikes = 0
        tracked.next_age_ns = max(tracked.next_age_ns, self._stuck_after_ns)
        while tracked.next_age_ns <= age_ns:
            tracked.next_age_ns *= 2
        return tracked

    def ends(self, name: Name, pid: int, now_ns: int, wall_ns: int) -> Tracked | None:
        """A thing has ended: what is known of it; None when its end was told before."""
        if name in self._ended:
            self.ended_twice += 1
            return None
        self._ended[name] = None
        if len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        tracked = self._tracked.pop(name, None)
        return tracked or Tracked(self.new_id(name[0], pid), name, pid, wall_ns - (now_ns - name[2]))

    def vanishes(self, name: Name) -> bool:
        """A tracked thing is not open any more, and its end was not told; True when that is certain now."""
        tracked = self._tracked.get(name)
        if tracked is None:
            return False
        tracked.strikes += 1
        return tracked.strikes >= STRIKES

    def open_names(self) -> list[Name]:
        """What was told of and has not ended."""
        return list(self._tracked)

    def new_id(self, kind: Kind, pid: int) -> str:
        """The next id of a process: 4242-17 for lookups, 4242-c18 for connects."""
        self._numbers[pid] += 1
        return f"{pid}-{self._numbers[pid]}" if kind == "lookup" else f"{pid}-c{self._numbers[pid]}"
