"""Ends the lookups of goroutines whose program is gone: a goroutine does not end like a thread.

Owns: finding them when a process has exited or runs another program, and when a goroutine has ended inside.
Must not know: lines, causes.
What it ends looks like a frame of the kernel's own, and is counted like one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import Counter, FrameKind, LookupFlag, Role, Status
from ebpfdns.observe import leftovers, memory

#: of struct g: a word with its status, and one more, stand in front of its id
STATUS, ID = struct.Struct("=I4x"), struct.Struct("=Q")
IDLE, DEAD, SCANNED = 0, 6, 0x1000
#: a lookup that is younger has not been told of
OLD_NS = 1_000_000_000

if TYPE_CHECKING:
    from ebpfdns.observe.kernel_maps import KernelMaps


def end_lookups_of(maps: KernelMaps, pid: int, end_ns: int) -> list[bytes]:
    """Frames of what goroutines of this process began before a time, and nothing will end."""
    frames = []
    for key, raw in maps.goroutines_of(pid):
        call = boundary.CALL.unpack(raw)
        is_old = call.start_ns < end_ns if call.start_ns else _works_for_old(maps, call.result, end_ns)
        if is_old and maps.forget_goroutine(key) and call.start_ns:
            frames += _end(maps, key, call, end_ns)
    return frames


def _works_for_old(maps: KernelMaps, key: int, end_ns: int) -> bool:
    """Whether the lookup that a goroutine works for is over, or began before a time.

    Whoever works has no time of its own. It may do so for the next program already when the exec is heard of.
    """
    raw = maps.call_of(key)
    return raw is None or boundary.CALL.unpack(raw).start_ns < end_ns


def end_lookups_of_gone(
    maps: KernelMaps, pid: int, alive_tid: int, goid_offset: int, now_ns: int
) -> list[bytes]:
    """Frames of lookups that goroutines have left without a return (a panic, runtime.Goexit)."""
    frames = []
    for key, raw in maps.goroutines_of(pid):
        call = boundary.CALL.unpack(raw)
        if call.role & Role.FLIGHT and not call.start_ns:
            if maps.call_of(call.result) is None:
                maps.forget_goroutine(key)
        elif call.start_ns and now_ns - call.start_ns > OLD_NS and not call.is_earlier:
            is_gone = _has_ended(alive_tid, call.stack + goid_offset, call.hints)
            if is_gone and maps.forget_goroutine(key):
                frames += _end(maps, key, call, now_ns)
    return frames


def _has_ended(alive_tid: int, id_at: int, goroutine_id: int) -> bool:
    """Whether a goroutine's struct is free, or another one's; False when it cannot be read."""
    raw = memory.read_memory(alive_tid, id_at - STATUS.size, STATUS.size + ID.size)
    if len(raw) < STATUS.size + ID.size:
        return False
    status, found = STATUS.unpack_from(raw)[0], ID.unpack_from(raw, STATUS.size)[0]
    return found != goroutine_id or status & ~SCANNED in (IDLE, DEAD)


def _end(maps: KernelMaps, key: int, call: Any, end_ns: int) -> list[bytes]:  # noqa: ANN401 - of boundary.CALL
    """The frame of a lookup that nobody else can end any more."""
    record = maps.lookup_of(key) if call.has_record else None
    if record is not None:
        if not leftovers.drop(maps, record, Counter.LOOKUPS_ABANDONED):
            return []
        head = boundary.LOOKUP.unpack(record)
        return [leftovers.ended(record, head.flags, head.query_count, end_ns, Status.ABANDONED)]
    maps.count_end(Counter.LOOKUPS_ABANDONED)
    flags = LookupFlag.NAME_UNREAD | (LookupFlag.BEFORE_ATTACH if call.is_earlier else 0)
    return [leftovers.ended(_record(key, call), flags, 0, end_ns, Status.ABANDONED)]


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
