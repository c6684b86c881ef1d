"""Lookups of goroutines that were under way when tracing began: found in memory, ended by the probes.

Owns: which these are, that each is put into the kernel's map once, and whether it is still there.
Must not know: lines, causes, how a stack is read.

A lookup that is found gets the entry that its first probe would have made, so that its return, which has a
probe, ends it, and what its goroutines ask from now on joins it. What they had asked before only the look
tells. A goroutine that has left its lookup without a return (a panic) is missed a few times, then given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns import logs
from ebpfdns.model import boundary
from ebpfdns.model.boundary import Api, Counter, FrameKind, LookupFlag, Role
from ebpfdns.observe import go_probes, go_waits, goroutines, leftovers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.go_waits import Found
    from ebpfdns.observe.goroutines import Goroutine, Goroutines
    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.observe.target import Target

MS = 1_000_000
SURE_NS = 200 * MS
GONE_NS = 150 * MS
STRIKES = 3


@dataclass(slots=True)
class Held:
    """One lookup of a goroutine that began earlier."""

    key: int
    pid: int
    found: Found
    call: str  # the function whose return ends it
    since_ns: int
    place: Goroutine  # as it was last seen
    seen_ns: int
    is_sure: bool = False
    strikes: int = 0
    missed_ns: int = 0


class EarlierGoroutines:
    """All of them, of one kernel."""

    def __init__(self, maps: KernelMaps, *, knows_host_ids: bool) -> None:
        self._maps = maps
        # In a pid namespace the kernel's keys are not known: what was found could never be ended.
        self._knows_host_ids = knows_host_ids
        self._held: dict[int, Held] = {}
        self._programs: dict[int, tuple[int, GoProgram]] = {}  # pid → a thread of it, its program

    def find(self, targets: Iterable[Target], now_ns: int) -> None:
        """Look at all goroutines of the targets, whose probes are live."""
        for target in targets:
            if target.go is None or not self._knows_host_ids:
                continue
            looked = goroutines.open_goroutines(target.process.alive_tid, target.go)
            if looked is None:
                continue
            self._programs[target.pid] = target.process.alive_tid, target.go
            try:
                self._find(target.pid, target.go, looked, now_ns)
            finally:
                looked.close()

    def _find(self, pid: int, program: GoProgram, looked: Goroutines, now_ns: int) -> None:
        kinds = go_probes.lookup_kinds(program)
        for found in go_waits.find(looked):
            call = next((name for name in reversed(found.calls) if name in kinds), None)
            # What cgo does is seen on its thread, in the C library.
            if call is not None and not found.is_cgo:
                self._hold(pid, found, call, kinds[call], looked, now_ns)
        if looked.left_out:
            logs.warning("goroutines were not looked at, for want of time", pid=pid, count=looked.left_out)

    def _hold(  # noqa: PLR0917 - one lookup, and where it was found
        self, pid: int, found: Found, call: str, kind: int, looked: Goroutines, now_ns: int
    ) -> None:
        one = found.goroutine
        since_ns = min(one.waits_since_ns or now_ns, now_ns)
        key, host = boundary.go_key(pid, one.id), found.host
        entry = boundary.CALL.pack(
            start_ns=since_ns,
            stack=one.address,
            name=host.address if host else 0,
            name_size=len(host.bytes) if host else 0,
            hints=one.id,
            result=boundary.go_key(pid, found.flight.id) if found.flight is not None else 0,
            pid=pid,
            api=Api.GO,
            is_earlier=1,
            function=kind,
        )
        if not self._maps.hold_goroutine(key, entry):
            return
        if looked.at(one.address) != one:  # it has gone on meanwhile: its return may have been missed
            self._maps.forget_goroutine(key)
            return
        self._maps.count_found(Counter.LOOKUPS_STARTED)
        if found.flight is not None:
            flight = boundary.CALL.pack(pid=pid, role=Role.FLIGHT, result=key)
            self._maps.hold_goroutine(boundary.go_key(pid, found.flight.id), flight)
        is_sure = now_ns - since_ns >= SURE_NS
        self._held[key] = Held(key, pid, found, call, since_ns, one, now_ns, is_sure)

    def knows(self, pid: int) -> bool:
        """Whether the goroutines of a process were looked at: then its threads need not be."""
        return pid in self._programs

    def holds(self, key: int) -> bool:
        """Whether it is one of these."""
        return key in self._held

    def is_sure(self, key: int) -> bool:
        """Whether it waits for so long that it is worth a word."""
        held = self._held.get(key)
        return held is not None and held.is_sure

    def is_behind_another(self, key: int) -> bool:
        """Whether it waits for what another goroutine has asked."""
        held = self._held.get(key)
        return held is not None and not held.found.questions

    def facts(self, keys: Iterable[int]) -> dict[str, dict[str, Any]]:
        """What the look has found of these."""
        return {str(key): go_waits.told(self._held[key].found) for key in keys if key in self._held}

    def look(self, now_ns: int) -> list[bytes]:
        """Look at each again; the frames of those that are gone without a word."""
        for held in list(self._held.values()):
            if self._maps.earlier_call(held.key) is None:
                del self._held[held.key]  # the kernel has ended it, and told so
        frames: list[bytes] = []
        for pid in {held.pid for held in self._held.values()}:
            those = [held for held in self._held.values() if held.pid == pid]
            for held in self._left(pid, those, now_ns):
                frames += self._end(held)
        return frames

    def forget(self, pid: int) -> None:
        """The process is gone, or runs another program; what it left open others end."""
        self._held = {key: held for key, held in self._held.items() if held.pid != pid}
        self._programs.pop(pid, None)

    def _left(self, pid: int, those: Sequence[Held], now_ns: int) -> list[Held]:
        """Those that were not found in their lookup for some time."""
        looked = goroutines.open_goroutines(*self._programs[pid])
        if looked is None:
            return []
        try:
            return [held for held in those if self._has_left(held, looked, now_ns)]
        finally:
            looked.close()

    @staticmethod
    def _has_left(held: Held, looked: Goroutines, now_ns: int) -> bool:
        place = held.place
        now = looked.at(place.address)
        # While it runs, or waits for a processor, its stack says nothing: it may be on its way to its return.
        is_there = looked.runs(place.address, place.id) if now is None else now.id == place.id
        if is_there and now is not None and now != held.place:
            names = {frame.name for frame in looked.frames(now, looked.stack(now))}
            is_there, held.place = held.call in names, now
        if is_there:
            held.strikes, held.seen_ns = 0, now_ns
            held.is_sure = held.is_sure or now_ns - held.since_ns >= SURE_NS
            return False
        held.missed_ns = now_ns if not held.strikes else held.missed_ns
        held.strikes += 1
        return held.strikes >= STRIKES and now_ns - held.missed_ns >= GONE_NS

    def _end(self, held: Held) -> list[bytes]:
        """Its frame, which ends when it was last seen; none when the kernel was first."""
        del self._held[held.key]
        raw = self._maps.take_earlier_call(held.key)
        if raw is None:
            return []
        call = boundary.CALL.unpack(raw)
        record = self._maps.lookup_of(held.key) if call.has_record else None
        return [leftovers.end_unseen(self._maps, record, held.seen_ns, lambda: _record(held))]


def _record(held: Held) -> bytes:
    """A struct lookup that has asked nobody since."""
    host = held.found.host
    name = host.bytes[: boundary.LOOKUP_NAME_BYTES - 1] if host else b""
    return boundary.LOOKUP.pack(
        kind=FrameKind.LOOKUP,
        flags=LookupFlag.BEFORE_ATTACH,
        key=held.key,
        start_ns=held.since_ns,
        pid=held.pid,
        host_pid=boundary.go_host_pid(held.key),
        api=Api.GO,
        name=name,
        name_bytes=len(name),
        service=boundary.GO_PART.pack(goroutine=held.found.goroutine.id),
    )
