"""Lookups that were under way when tracing began: found by a look at every thread, followed until they end.

Owns: which threads those are, and whether each is in its lookup still. Must not know: lines, causes.

No probe has seen such a call begin, and none will see it return. So it is put into the kernel's map of calls,
under a key of its own: what the thread sends from now on joins it there, and the thread's next call or its
end ends it. Whether it has simply returned only a look can tell, so each scan takes one: a thread that was
not found in a resolver `STRIKES` times in a row, for `GONE_NS` at least, has left it. How it ended is then
not known.

It is told of when its thread has slept in this wait for `SURE_NS`, or a second look finds it there: a healthy
lookup's wait is shorter.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import EARLIER_BIT, Counter, LookupFlag
from ebpfdns.observe import last_run, leftovers, proc_files, resolver_waits, snapshot, syscalls
from ebpfdns.observe.earlier_connects import EarlierConnects
from ebpfdns.observe.earlier_goroutines import EarlierGoroutines
from ebpfdns.observe.kernel_maps import is_earlier
from ebpfdns.observe.processes import threads
from ebpfdns.observe.syscalls import EPOLL_WAITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.observe.resolver_waits import ResolverWait
    from ebpfdns.observe.target import Target

MS = 1_000_000
SURE_NS = 200 * MS
GONE_NS = 150 * MS
STRIKES = 3
#: In a pid namespace the kernel's numbers are not ours: no thread has such a key, so only looks end it there.
NOBODY_BIT = 1 << 61
_CALL = {field: at for field, at, _ in boundary.CALL.offsets()}
_LOOKUP = {field: at for field, at, _ in boundary.LOOKUP.offsets()}


@dataclass(slots=True)
class Held:
    """One thread in a lookup that began earlier."""

    key: int
    pid: int
    tid: int
    found_ns: int
    place: str  # the text of /proc/TID/syscall: the call, its arguments, the height of the stack
    wait: ResolverWait
    inodes: tuple[str, ...] = ()  # of what it waits for
    first_inodes: tuple[str, ...] = ()  # of what it waited for when it was found
    has_probes: bool = False  # a later call of its thread would be seen
    seen_ns: int = 0  # there, the last time
    is_sure: bool = False
    strikes: int = 0
    missed_ns: int = 0


class Earlier:
    """All of them, of one kernel."""

    def __init__(self, maps: KernelMaps, dns_ports: frozenset[int], *, knows_host_ids: bool) -> None:
        self._maps = maps
        self._ports = dns_ports
        self._mark = EARLIER_BIT if knows_host_ids else EARLIER_BIT | NOBODY_BIT
        self._held: dict[int, Held] = {}
        self.connects = EarlierConnects(maps, dns_ports, knows_host_ids=knows_host_ids)
        self.goroutines = EarlierGoroutines(maps, knows_host_ids=knows_host_ids)

    def find(self, targets: Sequence[Target], now_ns: int, *, is_last: bool) -> None:
        """Look at every thread of the targets: before their probes are live, and when they are (`is_last`).

        What is known before that misses no packet; what is still so afterwards is true.
        """
        if is_last:
            self.connects.find(targets, now_ns)
            self.goroutines.find(targets, now_ns)
        seen = self._threads_seen_asking() if is_last else frozenset()
        for target in targets:
            places = {tid: proc_files.syscall(target.pid, tid) for tid in threads(target.pid)}
            looks = self._looks_of(target, places, is_last=is_last)
            if self.goroutines.knows(target.pid):  # whoever polls does so for all of its goroutines
                looks = {tid: facts for tid, facts in looks.items() if facts["syscall"] not in EPOLL_WAITS}
            waits = {tid: resolver_waits.resolver_wait(facts, self._ports) for tid, facts in looks.items()}
            found = {tid: wait for tid, wait in waits.items() if wait is not None}
            if is_last:
                self._release_all_but(found, target.pid)
                found = {tid: wait for tid, wait in found.items() if (target.pid, tid) not in seen}
            asleep = last_run.asleep_ns(target.pid, found)
            for tid, wait in found.items():
                held = Held(target.pid << 32 | tid | self._mark, target.pid, tid, now_ns, places[tid], wait)
                is_same = proc_files.syscall(target.pid, tid) == places[tid]  # it has slept in this very wait
                if held.key not in self._held:
                    self._hold(held, now_ns - asleep.get(tid, 0) * is_same)
        for held in self._held.values():
            libraries = next((one.libraries for one in targets if one.pid == held.pid), [])
            held.has_probes = any(library.functions for library in libraries)

    @staticmethod
    def _looks_of(target: Target, places: dict[int, str], *, is_last: bool) -> dict[int, dict[str, Any]]:
        calls = {tid: syscalls.parse_call(text).name for tid, text in places.items()}
        waiting = [tid for tid, name in calls.items() if name in resolver_waits.WAITS]
        looks = _looks(target.pid, waiting, with_stacks=is_last)
        locked = [tid for tid, name in calls.items() if name in resolver_waits.LOCKED]
        if is_last and (looks or len(calls) <= snapshot.MAX_STACKS):  # a lock is held by one that looks up
            looks |= _looks(target.pid, locked[: snapshot.MAX_STACKS], with_stacks=True)
        return looks

    def _release_all_but(self, waits: Mapping[int, ResolverWait], pid: int) -> None:
        """Those of a process that do not wait for the same as before, as if they had not been seen."""
        for held in [held for held in self._held.values() if held.pid == pid]:
            wait = waits.get(held.tid)
            if wait is not None and _inodes(pid, wait.fds) == held.inodes:
                continue
            del self._held[held.key]
            if self._maps.take_earlier_call(held.key) is None:
                continue
            record = self._maps.lookup_of(held.key)
            if record is None or not leftovers.drop(self._maps, record, Counter.LOOKUPS_UNSEEN):
                self._maps.count_found(Counter.LOOKUPS_STARTED, -1)

    def _threads_seen_asking(self) -> frozenset[tuple[int, int]]:
        """(pid, tid) of those whose questions the packets told already: these began since."""
        open_now = self._maps.open_lookups(1 << 63)
        heads = [struct.unpack_from("=QQQII", raw, _LOOKUP["key"]) for raw in open_now]
        return frozenset((pid, tid) for key, _, _, pid, tid in heads if key >> 63)

    def holds(self, key: int) -> bool:
        """Whether this is the key of one of them."""
        return is_earlier(key) or self.goroutines.holds(key)

    def is_sure(self, key: int) -> bool:
        """Whether it waits for so long that it is worth a word."""
        held = self._held.get(key)
        return held.is_sure if held is not None else self.goroutines.is_sure(key)

    def is_behind_another(self, key: int) -> bool:
        """Whether its thread waits for no socket: for a lock inside the resolver, then."""
        held = self._held.get(key)
        return held.wait.kind == "stack" if held is not None else self.goroutines.is_behind_another(key)

    def complete(self, key: int, pid: int, tid: int, facts: dict[str, Any]) -> None:
        """Put into a later snapshot of such a thread what it proves, for those who know no ports."""
        wait, held = resolver_waits.resolver_wait(facts, self._ports), self._held.get(key)
        if wait is None:
            facts["resolver_wait"] = None
        else:
            # A libc keeps a socket for one question and its repetitions.
            is_first = held is not None and held.first_inodes == _inodes(pid, wait.fds)
            is_first = is_first and facts["syscall"] not in syscalls.EPOLL_WAITS
            told = {"kind": wait.kind, "fds": list(wait.fds), "api": wait.api}
            facts["resolver_wait"] = told | {"is_first_socket": is_first}
        facts["asleep_ns"] = last_run.asleep_ns(pid, [tid]).get(tid)

    def look(self, now_ns: int) -> list[bytes]:
        """Look at each again; the frames of those that have ended, as the kernel would have sent them."""
        moved: dict[int, list[Held]] = {}
        for held in list(self._held.values()):
            if self._maps.earlier_call(held.key) is None:
                del self._held[held.key]  # the kernel has ended it, and told so
            elif (
                proc_files.syscall(held.pid, held.tid) == held.place
                and _inodes(held.pid, held.wait.fds) == held.inodes
            ):
                self._is_there(held, now_ns)
            else:
                moved.setdefault(held.pid, []).append(held)
        gone = self.connects.look(now_ns) + self.goroutines.look(now_ns)
        for pid, those in moved.items():
            is_known_by_stack = any(held.wait.kind == "stack" for held in those)
            looks = _looks(pid, [held.tid for held in those], with_stacks=is_known_by_stack)
            for held in those:
                if self._has_left(held, looks[held.tid], now_ns):
                    gone += self._end(held)
        return gone

    def end_of(self, pid: int, now_ns: int) -> list[bytes]:
        """Frames of all that a process which is gone left open, and the kernel could not end."""
        self.goroutines.forget(pid)
        those = [held for held in self._held.values() if held.pid == pid]
        return self.connects.end_of(pid, now_ns) + [frame for held in those for frame in self._end(held)]

    # One of them.

    def _hold(self, held: Held, since_ns: int) -> None:
        """`since_ns`: it waits so since then, at the latest."""
        held.first_inodes = held.inodes = _inodes(held.pid, held.wait.fds)
        held.seen_ns = held.found_ns
        held.is_sure = held.found_ns - since_ns >= SURE_NS
        call = bytearray(boundary.CALL.size)
        struct.pack_into("=Q", call, _CALL["start_ns"], since_ns)
        struct.pack_into("=II", call, _CALL["pid"], held.pid, held.tid)
        call[_CALL["is_earlier"]] = 1
        if self._maps.hold_earlier_call(held.key, held.pid << 32 | held.tid, bytes(call)):
            self._held[held.key] = held

    @staticmethod
    def _is_there(held: Held, now_ns: int) -> None:
        held.strikes, held.seen_ns = 0, now_ns
        held.is_sure = held.is_sure or now_ns - held.found_ns >= SURE_NS

    def _has_left(self, held: Held, facts: dict[str, Any], now_ns: int) -> bool:
        """Whether a thread that is somewhere else now is in its lookup no more."""
        wait = resolver_waits.resolver_wait(facts, self._ports)
        is_same = bool(held.inodes) and _inodes(held.pid, held.wait.fds) == held.inodes
        if is_same and set(held.wait.fds) <= {socket["fd"] for socket in facts["sockets"]}:
            wait = held.wait  # waits on for its socket, if only with another time-out
        if wait is not None and (held.has_probes or is_same):
            # Another wait of the same lookup: the next server, say. A new call would have been seen.
            held.place, held.wait = proc_files.syscall(held.pid, held.tid), wait
            held.inodes = _inodes(held.pid, wait.fds)
            self._is_there(held, now_ns)
            return False
        if not held.strikes:
            held.missed_ns = now_ns
        held.strikes += 1
        return held.strikes >= STRIKES and now_ns - held.missed_ns >= GONE_NS

    def _end(self, held: Held) -> list[bytes]:
        """Its frame, which ends when it was last seen; none when the kernel was first."""
        del self._held[held.key]
        raw = self._maps.take_earlier_call(held.key)
        if raw is None:
            return []
        record = self._maps.lookup_of(held.key)
        return [leftovers.end_unseen(self._maps, record, held.seen_ns, lambda: _record_of(held.key, raw))]


def _looks(pid: int, tids: list[int], *, with_stacks: bool) -> dict[int, dict[str, Any]]:
    """Snapshots of threads; the other ends of local sockets only where a name service listens."""
    looks = snapshot.thread_snapshots(pid, tids, with_peers=False, with_stacks=with_stacks) if tids else {}
    local = [tid for tid, facts in looks.items() if any(map(_is_local, facts["sockets"]))]
    if local and resolver_waits.is_service_listed(proc_files.text(f"/proc/{pid}/net/unix")):
        looks |= snapshot.thread_snapshots(pid, local, with_stacks=with_stacks)
    return looks


def _is_local(socket: Mapping[str, Any]) -> bool:
    return socket.get("kind") == "unix"


def _inodes(pid: int, fds: Iterable[int]) -> tuple[str, ...]:
    """What these descriptors are."""
    found = []
    for fd in fds:
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))  # noqa: PTH115 - a single call each
        except OSError:
            found.append("")
    return tuple(found)


def _record_of(key: int, call: bytes) -> bytes:
    """A struct lookup without queries, of a struct call."""
    seen = boundary.CALL.unpack(call)
    record = bytearray(boundary.LOOKUP.size)
    struct.pack_into("=II", record, 0, boundary.FrameKind.LOOKUP, LookupFlag.BEFORE_ATTACH)
    struct.pack_into("=QQ", record, _LOOKUP["key"], key, seen.start_ns)
    host_pid = (key & ~(EARLIER_BIT | NOBODY_BIT)) >> 32
    struct.pack_into("=IIII", record, _LOOKUP["pid"], seen.pid, seen.tid, host_pid, key & 0xFFFF_FFFF)
    record[_LOOKUP["api"]] = seen.api
    return bytes(record)
