"""Ends what the programs in the kernel cannot end themselves: lookups beyond those that a socket remembers.

Owns: finding them when their socket was closed, telling those that are answered and wait for nothing, and
removing questions that no lookup waits for any more.
Must not know: lines, causes. What it ends looks like a frame of the kernel's own, and is counted like one.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import Api, Counter, LookupFlag, QueryFlag, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.kernel_maps import KernelMaps

ANY_AGE_NS = (1 << 64) - 1
_OFFSETS = {field: at for field, at, _ in boundary.LOOKUP.offsets()}
_DONE = QueryFlag.ANSWERED | QueryFlag.NO_MESSAGE


def end_lookups_of_closed_sockets(maps: KernelMaps) -> list[bytes]:
    """Frames of the wire lookups whose socket was closed, each with the time of that."""
    closed = maps.closed_sockets()
    if not closed:
        return []
    frames = []
    for raw in maps.open_lookups(ANY_AGE_NS):
        head = boundary.LOOKUP.unpack(raw)
        if head.api != Api.WIRE or not head.query_count or head.flags & LookupFlag.LEFT:
            continue
        closed_ns = closed.get(boundary.QUERY.unpack(raw, boundary.LOOKUP.size).socket, 0)
        took_ns = closed_ns - head.start_ns
        if took_ns > 0 and drop(maps, raw, Counter.LOOKUPS_FAILED, took_ns):
            flags = head.flags | LookupFlag.SOCKET_CLOSED
            frames.append(ended(raw, flags, head.query_count, closed_ns, Status.FAILED))
    for socket in closed:
        maps.forget_closed_socket(socket)
    return frames


def end_left(maps: KernelMaps, pid: int | None = None) -> list[bytes]:
    """Frames of lookups, of a process or all, whose socket was closed: they will not go on with another."""
    left = [raw for raw in maps.open_lookups(0) if boundary.LOOKUP.unpack(raw).flags & LookupFlag.LEFT]
    ended = [end_as_left(maps, raw) for raw in left if pid in (None, boundary.LOOKUP.unpack(raw).pid)]
    return [frame for frame in ended if frame is not None]


def end_as_left(maps: KernelMaps, raw: bytes) -> bytes | None:
    """The frame of a lookup that ended with its socket; None when its program has asked again meanwhile."""
    head = boundary.LOOKUP.unpack(raw)
    now = maps.lookup_of(head.key)
    if now is None or not boundary.LOOKUP.unpack(now).flags & LookupFlag.LEFT:
        return None
    if not drop(maps, raw, Counter.LOOKUPS_FAILED, head.end_ns - head.start_ns):
        return None
    flags = head.flags & ~LookupFlag.LEFT | LookupFlag.SOCKET_CLOSED
    return ended(raw, flags, head.query_count, head.end_ns, Status.FAILED)


def end_as_read(maps: KernelMaps, raw: bytes) -> bytes | None:
    """The frame of a lookup that is answered: its thread reads outside of its event loop, or asks no more.

    When it read is not known: it ends when the last answer came. None when it has ended meanwhile.
    """
    head = boundary.LOOKUP.unpack(raw)
    replies = [query for query in queries_of(raw) if query.flags & QueryFlag.ANSWERED]
    end_ns = max((query.reply_ns for query in replies), default=head.start_ns)
    is_ok = any(query.rcode == 0 for query in replies)
    counter = Counter.LOOKUPS_OK if is_ok else Counter.LOOKUPS_FAILED
    if not drop(maps, raw, counter, end_ns - head.start_ns):
        return None
    status = Status.OK if is_ok else Status.FAILED
    return ended(raw, head.flags & ~LookupFlag.ANSWER_UNREAD, head.query_count, end_ns, status)


def has_asked_again(raw: bytes) -> bool:
    """Whether a question of it left more than once."""
    queries = queries_of(raw)
    return any(query.attempts > 1 for query in queries) or len({q.type for q in queries}) < len(queries)


def latest_packet_ns(raw: bytes) -> int:
    """When the latest packet of its kept questions passed."""
    times: list[int] = [max(query.sent_ns, query.resent_ns, query.reply_ns) for query in queries_of(raw)]
    return max([int(boundary.LOOKUP.unpack(raw).start_ns), *times])


def queries_of(raw: bytes) -> list[Any]:
    """The tuples of boundary.QUERY in a record."""
    count = min(boundary.LOOKUP.unpack(raw).query_count, boundary.MAX_QUERIES)
    return [
        boundary.QUERY.unpack(raw, boundary.LOOKUP.size + number * boundary.QUERY.size)
        for number in range(count)
    ]


def forget_orphan_questions(maps: KernelMaps) -> int:
    """Remove questions beyond the eight of a lookup that outlived it unanswered; how many there were."""
    orphans = 0
    for socket, number, key in maps.questions():
        if not maps.has_lookup(key):
            maps.forget_question(socket, number)
            orphans += 1
    return orphans


def drop(maps: KernelMaps, raw: bytes, counter: Counter, took_ns: int | None = None) -> bool:
    """Remove an open lookup with its questions and count its end; False when it has ended meanwhile."""
    head = boundary.LOOKUP.unpack(raw)
    if not maps.drop_lookup(head.key):
        return False
    waiting = (head.more_queries - head.more_answered) % (1 << 16)
    for number in range(min(head.query_count, boundary.MAX_QUERIES)):
        query = boundary.QUERY.unpack(raw, boundary.LOOKUP.size + number * boundary.QUERY.size)
        waiting += bool(query.sent_ns) and not query.flags & _DONE
        maps.forget_question(query.socket, query.id)
    if head.flags & LookupFlag.SUPPORTING:
        maps.count_dropped_supporting()
    else:
        maps.count_end(counter, took_ns, waiting)
    return True


def end_unseen(maps: KernelMaps, record: bytes | None, seen_ns: int, blank: Callable[[], bytes]) -> bytes:
    """The frame of a lookup whose end no probe sees: it ends when it was last seen.

    `record`: of the map, if it has asked somebody; `blank` makes one where there is none any more.
    """
    if record is None or not drop(maps, record, Counter.LOOKUPS_UNSEEN):
        maps.count_end(Counter.LOOKUPS_UNSEEN)
        record = blank()
    head = boundary.LOOKUP.unpack(record)
    query_count = min(head.query_count, boundary.MAX_QUERIES)
    return ended(record, head.flags, query_count, seen_ns, Status.UNSEEN)


def ended(raw: bytes, flags: int, query_count: int, end_ns: int, status: Status) -> bytes:
    """The record as the kernel would have sent it: only as long as it has queries."""
    ended = bytearray(raw[: boundary.LOOKUP.size + query_count * boundary.QUERY.size])
    struct.pack_into("=Q", ended, _OFFSETS["end_ns"], end_ns)
    struct.pack_into("=I", ended, _OFFSETS["flags"], flags)
    ended[_OFFSETS["status"]] = status
    return bytes(ended)
