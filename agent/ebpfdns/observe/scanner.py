"""Looks at what is open in the kernel and makes a `Scan` of what is due, with what surrounds it.

Owns: which open records need a snapshot or a name from memory, or must be dropped as nothing will end them.
Must not know: lines, causes. Asks the pipeline what is due, so that nothing is read in vain.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from ebpfdns.correlate import items
from ebpfdns.correlate.children import CHILD_BIT
from ebpfdns.model import boundary
from ebpfdns.model.boundary import ConnectFlag, Counter, LookupFlag
from ebpfdns.observe import leftovers, memory, pool_queue, receive_queues, siblings
from ebpfdns.observe.earlier import SURE_NS
from ebpfdns.observe.earlier_connects import refreshed
from ebpfdns.observe.followed import asked_daemons, is_supporting
from ebpfdns.observe.kernel_maps import is_earlier
from ebpfdns.observe.libc_calls import libc_calls
from ebpfdns.observe.looks import Looks
from ebpfdns.observe.server_answers import server_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ebpfdns.correlate.tracker import Name
    from ebpfdns.observe.earlier import Earlier
    from ebpfdns.observe.followed import Followed
    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.pipeline import Pipeline

    #: (list of the Scan it belongs to, (record, key, pid, tid))
    _Due = tuple[str, tuple[bytes, int, int, int]]

#: A wire lookup whose server was not asked for this long will not be asked again: no resolver waits longer.
WIRE_GIVEN_UP_NS = 35_000_000_000
#: A resolver that was told SERVFAIL asks again before this is over, or not at all (musl: half its time-out).
ASKS_AGAIN_NS = 6_000_000_000
#: A resolver that closes its socket and asks again with another one does so at once.
MOVES_NS = 100_000_000
#: The end of a connect is told within milliseconds; a record that ended earlier lost its teller.
CONNECT_END_GRACE_NS = 2_000_000_000
#: Between the calls of goroutines that want one name, and their turn to ask.
GO_GRACE_NS = 30_000_000
#: Things told of in one scan: the lines of many stuck at once come out in portions, the first ones soon.
PORTIONS = (16, 64)
PORTION = 256  # all the later ones
#: Snapshots in one scan: the later ones of a storm go without, and get theirs with their next line.
SNAPSHOTS = sum(PORTIONS)
WIRE_BIT = 1 << 63
#: what is known as a struct call: threads in a function, requests in a queue
CALLS = ("calls", "queued")
#: An answer that lies there for so long is not read: whoever waits for it reads it within a millisecond.
UNREAD_AFTER_NS = 250_000_000
#: kind, flags, key, start_ns, end_ns, pid, tid: of struct lookup and struct connect
_HOST_IDS = struct.Struct("=II")  # behind _HEAD
_HEAD = struct.Struct("=IIQQQII")
_START = struct.Struct("=Q")  # of struct call


class Scanner:
    """Scans of one kernel for one pipeline. `alive_tid` maps a pid to a thread of it that is alive."""

    def __init__(  # noqa: PLR0917 - what scans are made of
        self,
        maps: KernelMaps,
        pipeline: Pipeline,
        alive_tid: Callable[[int], int],
        clock: Callable[[], dict[str, int]],
        earlier: Earlier,
        followed: Followed,
    ) -> None:
        self._followed = followed
        self._earlier = earlier
        self._clock = clock
        self._maps = maps
        self._pipeline = pipeline
        self._alive_tid = alive_tid
        self._had_gone = False
        self._looks = Looks(alive_tid, followed.pids)
        #: when the next of what was open at the last scan will be stuck; None: not soon
        self.next_due_ns: int | None = None
        #: handshakes that are counted as open and are not there any more: the kernel makes room by itself
        self.evicted_handshakes = 0

    def scan(self, now_ns: int, wall_ns: int, stuck_after_ns: int) -> Iterator[items.Scan | items.Frames]:
        """Scans to feed, in portions; none when nothing is due. Feed frames before `vanished`."""
        older_ns = now_ns - stuck_after_ns
        half_ns = now_ns - stuck_after_ns // 2  # what will be looked at soon, too
        raws, of_daemons = _apart(self._maps.open_lookups(half_ns))
        lookups = [(raw, *_HEAD.unpack_from(raw)[2:]) for raw in raws]
        calls = self._maps.open_calls(half_ns)
        starts = [start for _, _, start, *_ in lookups] + [_START.unpack_from(raw)[0] for _, raw in calls]
        self.next_due_ns = min((start + stuck_after_ns for start in starts if start > older_ns), default=None)
        raws, daemon_connects = _apart(self._maps.open_connects(older_ns))
        handshakes, daemon_handshakes = self._open_handshakes(older_ns, now_ns)
        self._followed.hold(self._still_asked(of_daemons, now_ns), daemon_connects + daemon_handshakes)
        raws += handshakes + self._earlier.connects.open()
        connects = [(raw, *_HEAD.unpack_from(raw)[2:]) for raw in raws]
        self._siblings = siblings.Siblings(self._maps, raws)
        self.open_names: set[Name] = {("lookup", key, start) for _, key, start, _, _, _ in lookups}
        queued = pool_queue.still_queued(self._maps, self._alive_tid, older_ns)
        self.open_names |= {("lookup", key, _START.unpack_from(raw)[0]) for key, raw in calls + queued}
        self.open_names |= {("connect", key, start) for _, key, start, _, _, _ in connects}
        due, expired, read = self._due_lookups(lookups, now_ns)
        due += self._due_calls("calls", calls, now_ns) + self._due_calls("queued", queued, now_ns)
        self._looks.begin()
        due_connects, expired_connects = self._due_connects(connects, now_ns)
        due += due_connects
        if read:
            yield items.Frames(now_ns=now_ns, wall_ns=wall_ns, frames=read)
        if expired or expired_connects:
            yield items.Scan(
                now_ns=now_ns, wall_ns=wall_ns, expired_lookups=expired, expired_connects=expired_connects
            )
        for at, end in _portions(len(due)):
            yield self._portion(due[at:end], with_snapshots=at < SNAPSHOTS)
        self._followed.prepare([raw for raw, *_ in lookups], self._alive_tid)
        self._looks.prepare(
            {pid for *_, pid, _ in lookups + connects} | {_pid_of_call(raw) for _, raw in calls}
        )

    def _still_asked(self, of_daemons: list[bytes], now_ns: int) -> list[bytes]:
        """The questions of daemons that somebody may still wait for; others are forgotten."""
        old = [raw for raw in of_daemons if self._is_given_up(raw, now_ns)]
        for raw in old:
            leftovers.drop(self._maps, raw, Counter.LOOKUPS_ABANDONED)
        return [raw for raw in of_daemons if raw not in old] if old else of_daemons

    def _open_handshakes(self, older_ns: int, now_ns: int) -> tuple[list[bytes], list[bytes]]:
        """Those that are old enough to matter, and those of daemons.

        How many are counted as open but gone is found out, too.
        """
        before = self._maps.counters()
        found, of_daemons = _apart(self._maps.open_handshakes(now_ns))
        counted = before[Counter.HANDSHAKES_STARTED] - before[Counter.HANDSHAKES_ENDED]
        self.evicted_handshakes = max(0, counted - len(found))
        return [raw for raw in found if _HEAD.unpack_from(raw)[3] < older_ns], of_daemons

    def _due_lookups(self, lookups: list[Any], now_ns: int) -> tuple[list[_Due], list[bytes], list[bytes]]:
        """What is due; what nothing will end, and is dropped; frames of those whose answers were read."""
        due: list[_Due] = []
        expired: list[bytes] = []
        read: list[bytes] = []
        for raw, key, start_ns, _, pid, tid in lookups:
            if _flags(raw) & LookupFlag.LEFT:
                is_over = now_ns - boundary.LOOKUP.unpack(raw).end_ns > MOVES_NS
                frame = leftovers.end_as_left(self._maps, raw) if is_over else None
                read += [] if frame is None else [frame]
                continue
            is_due = self._is_lookup_due(key, start_ns, now_ns)
            if _flags(raw) & LookupFlag.ANSWER_UNREAD:
                if is_due and self._was_read(raw, pid):
                    frame = leftovers.end_as_read(self._maps, raw)
                    read += [] if frame is None else [frame]
                    continue
            elif key & WIRE_BIT and self._is_given_up(raw, now_ns):
                if leftovers.drop(self._maps, raw, Counter.LOOKUPS_ABANDONED):
                    expired.append(raw)
                continue
            elif _flags(raw) & LookupFlag.MAY_ASK_AGAIN:
                if now_ns - leftovers.latest_packet_ns(raw) > ASKS_AGAIN_NS:
                    frame = leftovers.end_as_read(self._maps, raw)
                    read += [] if frame is None else [frame]
                    continue
                is_due = is_due and leftovers.has_asked_again(raw)
            if is_due:
                due.append(("lookups", (raw, key, pid, tid)))
        return due, expired, read

    def _is_lookup_due(self, key: int, start_ns: int, now_ns: int) -> bool:
        """One that began before tracing is old enough as soon as it is certain."""
        is_held = self._earlier.holds(key)
        if is_held and not self._earlier.is_sure(key):
            return False
        return self._pipeline.is_due("lookup", key, start_ns, now_ns, at_once=is_held)

    def _due_calls(self, kind: str, calls: list[tuple[int, bytes]], now_ns: int) -> list[_Due]:
        due: list[_Due] = []
        for key, raw in calls:
            seen = boundary.CALL.unpack(raw)
            # The goroutine that asks for several may have begun a little later than one that waits for it.
            at_ns = now_ns - GO_GRACE_NS if seen.function else now_ns
            if self._is_lookup_due(key, seen.start_ns, at_ns):
                due.append((kind, (raw, key, seen.pid, seen.tid)))
        # Who asks is told of before those who wait for it inside the process, and they as they came.
        due.sort(key=lambda one: struct.unpack_from("=Q", one[1][0]))
        return sorted(due, key=lambda one: self._earlier.is_behind_another(one[1][1]))

    def _due_connects(self, connects: list[Any], now_ns: int) -> tuple[list[_Due], list[bytes]]:
        """What is due, and what ended without a word and is dropped."""
        due: list[_Due] = []
        expired: list[bytes] = []
        for raw, key, start_ns, end_ns, pid, tid in connects:
            if end_ns and now_ns - end_ns > CONNECT_END_GRACE_NS:
                if self._maps.drop_connect(key):
                    self._maps.count_end(Counter.CONNECTS_ABANDONED)
                    expired.append(raw)
            elif not end_ns and self._is_connect_due(raw, key, start_ns, now_ns):
                due.append(("connects", (raw, key, pid, tid)))
        return due, expired

    def _is_connect_due(self, raw: bytes, key: int, start_ns: int, now_ns: int) -> bool:
        """As of lookups: one that began before tracing is told of as soon as it is certain to wait."""
        is_earlier_one = bool(_flags(raw) & ConnectFlag.BEFORE_ATTACH)
        if is_earlier_one and now_ns - start_ns < SURE_NS:
            return False
        return self._pipeline.is_due("connect", key, start_ns, now_ns, at_once=is_earlier_one)

    def vanished(self, now_ns: int, wall_ns: int) -> items.Scan | None:
        """What was told of as open, is not open any more, and whose end no frame has told (all are fed)."""
        told = self._pipeline.told_open()
        gone = [name for name in told if name not in self.open_names and not name[1] & CHILD_BIT]
        is_news = gone or self._had_gone  # that one of them is back is news too
        self._had_gone = bool(gone)
        return items.Scan(now_ns=now_ns, wall_ns=wall_ns, vanished=gone) if is_news else None

    def _portion(self, due: list[_Due], *, with_snapshots: bool) -> items.Scan:
        now = self._clock()  # the later portions of many are observed later
        by_pid: dict[int, set[int]] = defaultdict(set)
        for _, (_, _, pid, tid) in due:
            by_pid[pid] |= {tid} - {0}
        asking = {tid for kind, (_, key, _, tid) in due if kind != "connects" and is_earlier(key)}
        threads: dict[str, dict[str, Any]] = {}
        confs: dict[str, dict[str, Any]] = {}
        snapshots: dict[str, dict[str, Any]] = {}
        for pid, tids in by_pid.items():
            confs[str(pid)] = self._looks.resolv_conf(pid)
            process = self._looks.process(pid)
            if process is not None:
                snapshots[str(pid)] = process
            if with_snapshots:
                threads |= self._looks.threads(pid, tids, asking)
        for kind, (_, key, pid, tid) in due:
            if kind != "connects" and is_earlier(key) and str(tid) in threads:
                self._earlier.complete(key, pid, tid, threads[str(tid)])
        waits = {}
        for kind, (raw, key, _, tid) in due:
            raw_wait = self._maps.wait_of(key if kind in CALLS else _thread_key(raw))
            if raw_wait is not None:
                waits[str(tid)] = raw_wait
        calls = [self._open_call(raw, key, pid, tid) for kind, (raw, key, pid, tid) in due if kind in CALLS]
        return items.Scan(
            now_ns=now["now_ns"],
            wall_ns=now["wall_ns"],
            lookups=[raw for kind, (raw, *_) in due if kind == "lookups"],
            calls=[call for call in calls if call is not None],
            connects=[
                refreshed(raw, threads.get(str(tid))) for kind, (raw, _, _, tid) in due if kind == "connects"
            ],
            waits=waits,
            threads=threads,
            resolv_confs=confs,
            answers=server_answers(
                self._maps, {_thread_key(raw) >> 32 for kind, (raw, *_) in due if kind == "lookups"}
            ),
            processes=snapshots,
            daemons=self._followed.facts(asked_daemons(snapshots, threads)),
            goroutines=self._earlier.goroutines.facts(key for _, (_, key, _, _) in due),
            siblings=self._siblings.of([raw for kind, (raw, *_) in due if kind == "connects"]),
            queues=self._queues(due, now["now_ns"]),
            libc_calls=libc_calls(self._maps, [of for kind, of in due if kind == "calls"]),
        )

    def _queues(self, due: list[_Due], now_ns: int) -> dict[str, dict[str, Any]]:
        """The receive queues of sockets to which an answer came some time ago, while its lookup goes on."""
        wanted: dict[int, set[str]] = defaultdict(set)
        for kind, (raw, _, pid, _) in due:
            if kind == "lookups":
                wanted[pid] |= receive_queues.with_answers(raw, now_ns - UNREAD_AFTER_NS)
        return {
            str(pid): receive_queues.receive_queues(self._alive_tid(pid), names)
            for pid, names in wanted.items()
            if names
        }

    def _was_read(self, raw: bytes, pid: int) -> bool:
        """Whether nothing lies in its sockets any more; what cannot be seen may lie there."""
        names = receive_queues.with_answers(raw)
        found = receive_queues.receive_queues(self._alive_tid(pid), names)
        return bool(found) and not any(facts["rx_queue_bytes"] for facts in found.values())

    def _open_call(self, raw: bytes, key: int, pid: int, tid: int) -> items.OpenCall | None:
        """Its name, read from the process's memory; None when the call has returned meanwhile."""
        seen = boundary.CALL.unpack(raw)
        is_text = (
            seen.name
            and not seen.name_size
            and seen.api not in (boundary.Api.RES_SEND, boundary.Api.RES_NSEND)
        )
        reader = self._alive_tid(pid)
        if seen.function:  # a goroutine's: a pointer and a length
            size = min(seen.name_size, boundary.LOOKUP_NAME_BYTES - 1)
            name = memory.read_memory(reader, seen.name, size) or None
        else:
            name = memory.read_text(reader, seen.name, boundary.LOOKUP_NAME_BYTES) if is_text else None
        thread_name = _thread_name(pid, tid) if tid else None
        if seen.api == boundary.Api.UV_GETADDRINFO:  # when it is begun with, that is found out next time
            return items.OpenCall(key=key, call=raw, name=name, thread_name=thread_name)
        now = self._maps.call_of(key)
        if now is None or boundary.CALL.unpack(now).start_ns != seen.start_ns:
            return None
        return items.OpenCall(key=key, call=raw, name=name, thread_name=thread_name)

    @staticmethod
    def _is_given_up(raw: bytes, now_ns: int) -> bool:
        """Whether the latest packet of a wire lookup is too old for another one to come."""
        return now_ns - leftovers.latest_packet_ns(raw) > WIRE_GIVEN_UP_NS


def _apart(raws: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Those of targets, and those of daemons that are followed."""
    of_daemons = [raw for raw in raws if is_supporting(raw)]
    return ([raw for raw in raws if not is_supporting(raw)], of_daemons) if of_daemons else (raws, [])


def _portions(total: int) -> Iterator[tuple[int, int]]:
    """(first, end) of each."""
    at = 0
    for size in chain(PORTIONS, repeat(PORTION)):
        if at >= total:
            return
        yield at, min(at + size, total)
        at += size


def _flags(raw: bytes) -> int:
    return int(_HEAD.unpack_from(raw)[1])


def _askers(due: list[_Due]) -> set[int]:
    """The processes that asked somebody, as the initial pid namespace numbers them."""
    return {_thread_key(raw) >> 32 for kind, (raw, *_) in due if kind == "lookups"}


def _pid_of_call(raw: bytes) -> int:
    return int(boundary.CALL.unpack(raw).pid)


def _thread_key(raw: bytes) -> int:
    """Host pid << 32 | host tid, of a struct lookup or struct connect."""
    host_pid, host_tid = _HOST_IDS.unpack_from(raw, _HEAD.size)
    return int(host_pid) << 32 | int(host_tid)


def _thread_name(pid: int, tid: int) -> bytes | None:
    from ebpfdns.observe.processes import thread_name  # noqa: PLC0415 - read only for calls that asked nobody

    name = thread_name(pid, tid)
    return None if name is None else name.encode("utf-8", "surrogateescape")
