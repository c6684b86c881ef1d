"""What followed daemons have asked and is over: the last of it, for lookups that still wait for them.

Owns: that memory. Must not know: whose question a daemon's question is, causes, lines.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ebpfdns.model.facts import Lookup

if TYPE_CHECKING:
    from ebpfdns.model.facts import Connect

#: Slow or failed ones of one daemon: the kernel tells of no others.
REMEMBERED = 256


class Behind:
    """By the pid of the daemon."""

    def __init__(self) -> None:
        self.past: dict[int, deque[Lookup]] = {}

    def has_ended(self, thing: Lookup | Connect) -> None:
        """A daemon's question or connection is over."""
        if isinstance(thing, Lookup):
            self.past.setdefault(thing.pid, deque(maxlen=REMEMBERED)).append(thing)

    def forget(self, pid: int) -> None:
        """The daemon is not followed any more."""
        self.past.pop(pid, None)
