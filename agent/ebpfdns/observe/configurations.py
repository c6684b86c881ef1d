"""The resolv.conf of processes whose lookups end, and what decides between Go's resolvers: read now.

An end is told without a scan.

Owns: which processes those are, and that none is read more than once a second.
Must not know: what a lookup says beyond its process, or what follows from the file.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ebpfdns.correlate import items
from ebpfdns.model import boundary
from ebpfdns.model.boundary import FrameKind
from ebpfdns.observe.resolv_conf import resolv_conf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FRESH_NS = 1_000_000_000
LOOKUP_FRAME = struct.pack("=I", FrameKind.LOOKUP)
_PID_AT = {name: at for name, at, _ in boundary.LOOKUP.offsets()}["pid"]
_PID = struct.Struct("=I")


class Configurations:
    """`alive_tid` maps a pid to a thread of it that is alive; `go` to what decides between Go's resolvers."""

    def __init__(self, alive_tid: Callable[[int], int], go: Callable[[int], dict[str, Any]]) -> None:
        self._alive_tid = alive_tid
        self._go = go
        self._read_ns: dict[int, int] = {}

    def of_ended(self, frames: Iterable[bytes], now_ns: int, wall_ns: int) -> items.Scan | None:
        """Of the processes whose lookups have ended."""
        ended = {
            _PID.unpack_from(raw, _PID_AT)[0]
            for raw in frames
            if raw.startswith(LOOKUP_FRAME) and len(raw) >= boundary.LOOKUP.size
        }
        return self.of(sorted(ended), now_ns, wall_ns)

    def of(self, pids: Iterable[int], now_ns: int, wall_ns: int) -> items.Scan | None:
        """A scan that has these files only; None when all were read just before, or none can be."""
        due = [pid for pid in pids if now_ns - self._read_ns.get(pid, 0) >= FRESH_NS]
        if not due:
            return None
        found: dict[str, dict[str, Any]] = {}
        for pid in due:
            self._read_ns[pid] = now_ns
            conf = resolv_conf(self._alive_tid(pid))
            if conf["present"] is not None:
                found[str(pid)] = dict(conf)
        go = {str(pid): facts for pid in due if (facts := self._go(pid))}
        is_new = bool(found or go)
        return items.Scan(now_ns=now_ns, wall_ns=wall_ns, resolv_confs=found, go=go) if is_new else None

    def forget(self, pid: int) -> None:
        """The process is gone."""
        self._read_ns.pop(pid, None)
