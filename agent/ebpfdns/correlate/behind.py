"""What followed daemons have asked and is over: the last of it, for lookups that wait or have just ended.

Owns: that memory. Must not know: whose question a daemon's question is, causes, lines.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ebpfdns.model.facts import Lookup

if TYPE_CHECKING:
    from ebpfdns.model.facts import Connect

#: Slow ones of one daemon: the kernel tells of all of them.
REMEMBERED = 256
#: Quick ones: the kernel tells of a few a second, and they matter for about as long.
REMEMBERED_QUICK = 128


class Behind:
    """By the pid of the daemon, the oldest first."""

    def __init__(self) -> None:
        self.past: dict[int, deque[Lookup]] = {}
        self._quick: dict[int, deque[Lookup]] = {}

    def has_ended(self, thing: Lookup | Connect, slow_after_ns: int) -> None:
        """A daemon's question or connection is over."""
        if not isinstance(thing, Lookup):
            return
        is_slow = (thing.end_ns or 0) - thing.start_ns >= slow_after_ns
        kept, size = (self.past, REMEMBERED) if is_slow else (self._quick, REMEMBERED_QUICK)
        kept.setdefault(thing.pid, deque(maxlen=size)).append(thing)

    def ended(self, pid: int) -> list[Lookup]:
        """All that is remembered of one daemon, slow or quick."""
        return [*self.past.get(pid, ()), *self._quick.get(pid, ())]

    def forget(self, pid: int) -> None:
        """The daemon is not followed any more."""
        self.past.pop(pid, None)
        self._quick.pop(pid, None)
