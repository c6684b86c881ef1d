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
from typing import TYPE_CHECKING, Literal

from ebpfdns.model.facts import Connect

if TYPE_CHECKING:
    from ebpfdns.model.facts import Lookup

Kind = Literal["lookup", "connect"]
Name = tuple[Kind, int, int]

#: Ended things that are remembered, so that a late sighting of one does not open it again: so many of those
#: that were old enough to be seen open, and of the others.
REMEMBERED = 8192
#: Ids of lookups that a later connect may refer to.
REMEMBERED_IDS = 4096
STRIKES = 2


def name_of(thing: Lookup | Connect) -> Name:
    """What it is called here."""
    return ("connect" if isinstance(thing, Connect) else "lookup", thing.key, thing.start_ns)


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
        self._stuck_after_ns = max(stuck_after_ns, 1)  # nothing doubled stays nothing
        self._tracked: dict[Name, Tracked] = {}
        self._numbers: Counter[int] = Counter()
        self._ended: OrderedDict[Name, None] = OrderedDict()
        self._ended_young: OrderedDict[Name, None] = OrderedDict()
        self._ids: OrderedDict[Name, str] = OrderedDict()
        self.stuck: Counter[Kind] = Counter()
        self.ended_twice = 0

    def is_due(self, name: Name, now_ns: int, *, at_once: bool = False) -> bool:
        """Whether an open thing should be told of now; `at_once`: the first time as soon as it is seen."""
        if self._has_ended(name):
            return False
        tracked = self._tracked.get(name)
        threshold_ns = tracked.next_age_ns if tracked else 0 if at_once else self._stuck_after_ns
        return now_ns - name[2] >= threshold_ns

    def next_due_ns(self, name: Name) -> int:
        """When an open thing should be told of next."""
        tracked = self._tracked.get(name)
        return name[2] + (tracked.next_age_ns if tracked else self._stuck_after_ns)

    def is_open(
        self,
        name: Name,
        pid: int,
        now_ns: int,
        wall_ns: int,
        *,
        at_once: bool = False,
        is_counted: bool = True,
    ) -> Tracked | None:
        """A thing was seen open: the tracked thing when a line is due, else None.

        `is_counted`: the kernel has counted it as started, so that it is one of the stuck ones of those.
        """
        if not self.is_due(name, now_ns, at_once=at_once):
            return None
        tracked = self._tracked.get(name)
        if tracked is None:
            tracked = Tracked(self.identity(name, pid), name, pid, wall_ns - (now_ns - name[2]))
            self._tracked[name] = tracked
            self.stuck[name[0]] += int(is_counted)
        age_ns = now_ns - name[2]
        tracked.updates += 1
        tracked.strikes = 0
        tracked.next_age_ns = max(tracked.next_age_ns, self._stuck_after_ns)
        while tracked.next_age_ns <= age_ns:
            tracked.next_age_ns *= 2
        return tracked

    def ends(self, name: Name, pid: int, now_ns: int, wall_ns: int) -> Tracked | None:
        """A thing has ended: what is known of it; None when its end was told before."""
        if self._has_ended(name):
            self.ended_twice += 1
            return None
        # Healthy ones come by the thousand; they must not push out those that a scan may have seen.
        remembered = self._ended if now_ns - name[2] >= self._stuck_after_ns else self._ended_young
        remembered[name] = None
        if len(remembered) > REMEMBERED:
            remembered.popitem(last=False)
        tracked = self._tracked.pop(name, None)
        return tracked or Tracked(self.identity(name, pid), name, pid, wall_ns - (now_ns - name[2]))

    def vanish(self, names: list[Name]) -> list[Name]:
        """Of all that is tracked these are not open any more, and no end was told: those that is certain of.

        Only in a row: a look at a map that changes meanwhile may miss an entry once.
        """
        gone = set(names)
        for name, tracked in self._tracked.items():
            tracked.strikes = tracked.strikes + 1 if name in gone else 0
        return [name for name in names if name in self._tracked and self._tracked[name].strikes >= STRIKES]

    def _has_ended(self, name: Name) -> bool:
        return name in self._ended or name in self._ended_young

    def was_told(self, name: Name) -> bool:
        """Whether a line was written about it, and none about its end."""
        return name in self._tracked

    def open_names(self) -> list[Name]:
        """What was told of and has not ended."""
        return list(self._tracked)

    def identity(self, name: Name, pid: int) -> str:
        """The id of a thing, the next of its process when it has none: 4242-17, or 4242-c18 of a connect.

        Those of lookups are remembered for a while: connects name the lookup that they come from.
        """
        known = self._ids.get(name)
        if known is not None:
            return known
        self._numbers[pid] += 1
        if name[0] == "connect":
            return f"{pid}-c{self._numbers[pid]}"
        self._ids[name] = f"{pid}-{self._numbers[pid]}"
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)
        return f"{pid}-{self._numbers[pid]}"
