"""What was lost since when: so that a rule knows whether to believe in silence, and each loss is told once.

Owns: totals over time, and the words for each stage. Must not know: maps, rings, outputs.
"""

from __future__ import annotations

from ebpfdns.model.boundary import Counter

#: stage → counter of the kernel
KERNEL_STAGES = {
    "kernel_ring": Counter.LOST_RING_FULL,
    "kernel_map_calls": Counter.LOST_CALLS_FULL,
    "kernel_map_lookups": Counter.LOST_LOOKUPS_FULL,
    "kernel_map_sockets": Counter.LOST_SOCKETS_FULL,
    "kernel_map_connects": Counter.LOST_CONNECTS_FULL,
    "kernel_map_waits": Counter.LOST_WAITS_FULL,
    "kernel_socket_keys": Counter.LOST_SOCKET_KEYS_FULL,
    "kernel_map_targets": Counter.LOST_TARGETS_FULL,
    "name_cut": Counter.LOST_NAMES_CUT,
    "memory_unread": Counter.LOST_MEMORY_UNREAD,
    "packet_odd": Counter.LOST_PACKETS_ODD,
}
MAP_REMEDY = "trace fewer processes with one agent: {what} found no room"
REMEDIES = {
    "kernel_ring": "more frames than were read: drop --all, or raise --slow-after",
    "kernel_map_calls": MAP_REMEDY.format(what="threads that look names up"),
    "kernel_map_lookups": MAP_REMEDY.format(what="lookups in flight at once, or their questions,"),
    "kernel_map_sockets": MAP_REMEDY.format(what="open DNS sockets"),
    "kernel_map_connects": MAP_REMEDY.format(what="connects in flight at once"),
    "kernel_map_targets": MAP_REMEDY.format(what="children"),
    "kernel_map_waits": MAP_REMEDY.format(what="threads that wait"),
    "kernel_socket_keys": "more than 8 lookups were open on one socket: their end at its close is not seen",
    "kernel_missed": "a probe could not run because another one was running on that CPU: counts may be short",
    "name_cut": "names longer than 255 bytes, or 92 in a question, are cut or left out",
    "memory_unread": "a name was not in memory yet, or not readable: it is null, or a lookup of its own",
    "packet_odd": "packets to or from port 53 that are no DNS messages were passed over",
    "frame_bad": "the agent did not understand a frame: please report it with --record",
    "output": "the reader of the output is too slow, or its disk is full",
    "recording": "the recording could not be written: is its disk full?",
}
#: stages whose loss may hide what a rule looks for
HIDING = frozenset(
    {
        "kernel_ring",
        "kernel_map_calls",
        "kernel_map_lookups",
        "kernel_map_sockets",
        "kernel_missed",
        "frame_bad",
    }
)
REMEMBERED = 256


class LossBook:
    """Totals as they were told, with the time of each change."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self._history: list[tuple[int, str, int]] = []  # of those that hide: (now_ns, stage, by how much)

    def update(self, now_ns: int, totals: dict[str, int]) -> dict[str, int]:
        """Take new totals; what has been added since the last ones."""
        added = {}
        for stage, total in totals.items():
            by = total - self.totals.get(stage, 0)
            if by > 0:
                added[stage] = by
                self.totals[stage] = total
                if stage in HIDING:
                    self._history.append((now_ns, stage, by))
        del self._history[:-REMEMBERED]
        return added

    def add(self, now_ns: int, stage: str, by: int) -> None:
        """Count a loss that happened in the middle itself."""
        self.update(now_ns, {stage: self.totals.get(stage, 0) + by})

    def hiding_since(self, since_ns: int) -> dict[str, int]:
        """Losses after `since_ns` that may hide something from a rule."""
        found: dict[str, int] = {}
        for at_ns, stage, by in self._history:
            if at_ns >= since_ns:
                found[stage] = found.get(stage, 0) + by
        return found
