"""Lookups whose end no program in the kernel tells by itself: each is ended from here, once.

Owns: when to look for which of them. Must not know: lines, causes, or how a record is ended (`leftovers`,
`go_leftovers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.correlate import items
from ebpfdns.model import boundary
from ebpfdns.model.boundary import ProcessChange
from ebpfdns.observe import go_leftovers, leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.observe.target import Target

FRAMES_A_FEED = 256


class Endings:
    """Of one kernel; `feed` takes the frames of what has ended, `now` gives their times."""

    def __init__(
        self, maps: KernelMaps, feed: Callable[[items.Item], None], now: Callable[[], dict[str, int]]
    ) -> None:
        self._maps = maps
        self._feed = feed
        self._now = now
        self._kept = 0

    def of_full_ring(self, kept: int) -> None:
        """Lookups that ended while the ring was full leave the map now; `kept`: how many ever did so."""
        if kept == self._kept:
            return
        self._kept = kept
        ended = self._maps.take_ended_lookups()
        for at in range(0, len(ended), FRAMES_A_FEED):
            self._tell(ended[at : at + FRAMES_A_FEED])

    def of_closed_sockets(self) -> None:
        """More lookups than a socket remembers were open on it."""
        self._tell(leftovers.end_lookups_of_closed_sockets(self._maps))

    def of_silent_programs(self, pid: int | None) -> None:
        """Lookups of a process, or of all, that wait for their program to ask again: it will not."""
        self._tell(leftovers.end_left(self._maps, pid))

    def of_old_program(self, raw: bytes) -> None:
        """Goroutines of the program that a process has left by exec. `raw`: struct process_change."""
        change = boundary.PROCESS_CHANGE.unpack(raw)
        if change.change == ProcessChange.EXECED:
            self.of_goroutines(change.pid, change.at_ns)

    def of_goroutines(self, pid: int, end_ns: int) -> None:
        """All of a process that is gone."""
        self._tell(go_leftovers.end_lookups_of(self._maps, pid, end_ns))

    def of_gone_goroutines(self, targets: Mapping[int, Target], now_ns: int) -> None:
        """Of each Go program: lookups that were left without a return."""
        for pid, target in targets.items():
            layout = target.go.layout if target.go is not None else None
            if layout is not None:
                tid = target.process.alive_tid
                frames = go_leftovers.end_lookups_of_gone(self._maps, pid, tid, layout.goid_offset, now_ns)
                self._tell(frames)

    def sweep(self, targets: Mapping[int, Target], now_ns: int) -> None:
        """What is looked for now and then only."""
        leftovers.forget_orphan_questions(self._maps)
        self.of_gone_goroutines(targets, now_ns)

    def _tell(self, frames: list[bytes]) -> None:
        if frames:
            self._feed(items.Frames(**self._now(), frames=frames))
