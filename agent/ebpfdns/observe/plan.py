"""What a session was asked for, and when it has to do what.

Owns: the options in base units, and the times of the next work. Must not know: the work, or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MS = 1_000_000
IDLE_NS, OPEN_NS = 100 * MS, 50 * MS  # how often what is open is looked at: nothing open, something open
SOONEST_NS = 10 * MS  # … and when something becomes stuck that moment
#: after an exec its new libraries are mapped by and by
RESCAN_AFTER_MS = (0, 5, 20, 100, 500, 2000)


@dataclass(slots=True)
class Options:
    """What the user chose, in base units."""

    stuck_after_ns: int
    slow_after_ns: int
    publish_all: bool = False
    stats_every_ns: int = 60_000 * MS
    duration_ns: int | None = None
    ready_file: Path | None = None
    redact_key: str | None = None
    follow: bool = True  # the daemons that targets ask


@dataclass(slots=True)
class Plan:
    """What is to be done when, in monotonic time."""

    scan_ns: int
    stats_ns: int
    losses_ns: int
    end_ns: int | None
    full_scan_ns: int = 0
    sweep_ns: int = 0
    children_ns: int = 0
    loops_ns: int = 0
    rescans: list[tuple[int, int]] = field(default_factory=list)  # (when, pid)

    @classmethod
    def starting(cls, now_ns: int, options: Options, pids: Iterable[int]) -> Self:
        """The first plan: libraries that a target loads soon after its start are looked for once more."""
        end_ns = None if options.duration_ns is None else now_ns + options.duration_ns
        plan = cls(now_ns + OPEN_NS, now_ns + options.stats_every_ns, now_ns, end_ns)
        plan.rescans = [(now_ns + RESCAN_AFTER_MS[-1] * MS, pid) for pid in pids]
        return plan

    def looked(self, now_ns: int, next_due_ns: int | None, *, is_open: bool) -> None:
        """A look at what is open has ended; `next_due_ns`: when the next of it will be stuck."""
        self.scan_ns = now_ns + (OPEN_NS if is_open else IDLE_NS)
        if next_due_ns is not None:
            self.scan_ns = min(self.scan_ns, max(next_due_ns, now_ns + SOONEST_NS))

    def next_ns(self) -> int:
        """When the loop has to wake up by itself."""
        times = [self.scan_ns, self.stats_ns, *(when for when, _ in self.rescans)]
        return min([*times, self.end_ns] if self.end_ns is not None else times)
