"""Ends the lookups of goroutines whose program is gone: a goroutine does not end like a thread.

Owns: finding them when a process has exited, or runs another program. Must not know: lines, causes.
What it ends looks like a frame of the kernel's own, and is counted like one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import Counter, FrameKind, LookupFlag, Status
from ebpfdns.observe import leftovers

if TYPE_CHECKING:
    from ebpfdns.observe.kernel_maps import KernelMaps


def end_lookups_of(maps: KernelMaps, pid: int, end_ns: int) -> list[bytes]:
    """Frames of what goroutines of this process began before a time, and nothing will end."""
    frames = []
    for key, raw in maps.goroutines_of(pid):
        call = boundary.CALL.unpack(raw)
        if call.start_ns >= end_ns or not maps.forget_goroutine(key) or not call.start_ns:
            continue
        record = maps.lookup_of(key) if call.has_record else None
        if record is not None and leftovers.drop(maps, record, Counter.LOOKUPS_ABANDONED):
            head = boundary.LOOKUP.unpack(record)
            frames.append(leftovers.ended(record, head.flags, head.query_count, end_ns, Status.ABANDONED))
        elif record is None:
            maps.count_end(Counter.LOOKUPS_ABANDONED)
            flags = LookupFlag.NAME_UNREAD | (LookupFlag.BEFORE_ATTACH if call.is_earlier else 0)
            frames.append(leftovers.ended(_record(key, call), flags, 0, end_ns, Status.ABANDONED))
    return frames


def _record(key: int, call: Any) -> bytes:  # noqa: ANN401 - a tuple of boundary.CALL
    """A struct lookup of a call without one; its name was in the memory that is gone."""
    fields = {
        "kind": FrameKind.LOOKUP,
        "key": key,
        "start_ns": call.start_ns,
        "pid": call.pid,
        "tid": call.tid,
        "host_pid": boundary.go_host_pid(key),
        "api": call.api,
        "service": boundary.GO_PART.pack(goroutine=call.hints),
    }
    return boundary.LOOKUP.pack(**fields)
