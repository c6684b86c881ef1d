"""What the programs keep in their maps: read, counted together, and told what they need to know.

Owns: every map by its name, and sums over CPUs. Must not know: programs, attachments, or what records mean
beyond the few fields by which they are chosen.
"""

from __future__ import annotations

import struct
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.model import boundary
from ebpfdns.observe import bpf_calls
from ebpfdns.observe.bpf_calls import Map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ebpfdns.observe.programs import MapPlan

U32, U64 = struct.Struct("=I"), struct.Struct("=Q")
#: struct given_key and struct given of bpf/maps.c
GIVEN_KEY, GIVEN = struct.Struct("=II16s"), struct.Struct("=QQ8xQ128x")
#: `target_slots`: a byte for each pid modulo this, eight to an element
PID_SLOTS = 16_384
#: in `targets`: a daemon that is followed
SUPPORTING = 1 << 63
SLOTS_AN_ELEMENT = 8
CALL_AT = {name: at for name, at, _ in boundary.CALL.offsets()}
TARGET_RESOLVES_IN_GO = 1
CALL_IS_EARLIER_AT = {name: at for name, at, _ in boundary.CALL.offsets()}["is_earlier"]
LOOKUP_STATUS_AT = {name: at for name, at, _ in boundary.LOOKUP.offsets()}["status"]
#: connects that are wanted whatever their age
ANY_AGE = boundary.ConnectFlag.BEFORE_ATTACH | boundary.ConnectFlag.SUPPORTING
#: … and such lookups
OF_ANY_AGE = boundary.LookupFlag.SUPPORTING | boundary.LookupFlag.LEFT | boundary.LookupFlag.BEFORE_ATTACH
WAIT_RETURNS_AT = {name: at for name, at, _ in boundary.WAIT.offsets()}["returns"]


class KernelMaps:
    """All maps of one agent. Whoever makes it closes `fds`; OSError when a map cannot be made."""

    def __init__(self, plans: Iterable[MapPlan]) -> None:
        self._cpus = _possible_cpus()
        self._maps: dict[str, Map] = {}
        #: ends that the agent itself has told, beside the kernel's own counters
        self._added = [0] * len(boundary.Counter)
        self._added_latency = [0] * (boundary.HISTOGRAM_BUCKETS + 1)
        for plan in plans:
            arguments = (plan.kind, plan.name, plan.key_bytes, plan.value_bytes, plan.entries, plan.flags)
            fd = bpf_calls.create_map(*arguments)
            is_per_cpu = plan.kind == bpf_calls.MAP_TYPE_PERCPU_ARRAY
            value_bytes = -(-plan.value_bytes // 8) * 8 * self._cpus if is_per_cpu else plan.value_bytes
            self._maps[plan.name] = Map(fd, plan.key_bytes, value_bytes, plan.entries)

    @property
    def fds(self) -> dict[str, int]:
        """Name → descriptor."""
        return {name: entry.fd for name, entry in self._maps.items()}

    @property
    def ring_bytes(self) -> int:
        """Size of the ring buffer `frames`."""
        return self._maps["frames"].entries

    def set_tail_call(self, name: str, program_fd: int) -> None:
        """Let a program jump to another one."""
        self._maps[name].set(U32.pack(0), U32.pack(program_fd))

    # Telling.

    def set_options(self, slow_after_ns: int, *, publish_all: bool) -> None:
        """What is worth a frame when it ends."""
        self._maps["settings"].set(U32.pack(0), struct.pack("=QII", slow_after_ns, int(publish_all), 0))

    def add_target(self, pid: int, now_ns: int, *, is_supporting: bool = False) -> None:
        """From now on this process counts; `is_supporting`: only what it asks and connects to is seen."""
        since_ns = now_ns & ~TARGET_RESOLVES_IN_GO
        self._maps["targets"].set(U32.pack(pid), U64.pack(since_ns | (SUPPORTING if is_supporting else 0)))
        self._tell_slots(pid)

    def tell_resolver(self, pid: int, *, is_go: bool) -> None:
        """Whether Go's own resolver is in it, and seen."""
        found = self._maps["targets"].get(U32.pack(pid))
        if found is not None:
            since = U64.unpack(found)[0] & ~TARGET_RESOLVES_IN_GO
            self._maps["targets"].set(U32.pack(pid), U64.pack(since | int(is_go)))

    def remove_target(self, pid: int) -> None:
        """It does not count any more."""
        self._maps["targets"].remove(U32.pack(pid))
        self._tell_slots(pid)

    def _tell_slots(self, pid: int) -> None:
        """Bring the pid's element of `target_slots` in line with `targets`.

        An element is written as a whole, and the kernel may set a byte meanwhile, for a child that is born
        (`targets` first, then the byte): hence a look at `targets` afterwards, until both say the same.
        """
        number = pid % PID_SLOTS // SLOTS_AN_ELEMENT
        index = U32.pack(number)
        while self._maps["target_slots"].get(index) != (wanted := self._slots_of_targets(number)):
            self._maps["target_slots"].set(index, wanted)

    def _slots_of_targets(self, number: int) -> bytes:
        """What an element of `target_slots` ought to be."""
        keys, _, count = self._maps["targets"].items()
        slots = bytearray(SLOTS_AN_ELEMENT)
        for (pid,) in U32.iter_unpack(keys[: U32.size * count]):
            if pid % PID_SLOTS // SLOTS_AN_ELEMENT == number:
                slots[pid % SLOTS_AN_ELEMENT] = 1
        return bytes(slots)

    # Reading.

    def counters(self) -> list[int]:
        """Every counter, summed over the CPUs, in the order of boundary.Counter."""
        total = len(boundary.Counter)
        _, values, count = self._maps["counters"].items()
        if count != total:  # a kernel that cannot read a per-CPU map at once (before 5.13)
            sums = [self._sum_per_cpu("counters", index, "=Q")[0] for index in range(total)]
        else:
            cells = struct.unpack_from(f"={total * self._cpus}Q", values)
            sums = [sum(cells[at : at + self._cpus]) for at in range(0, len(cells), self._cpus)]
        return list(map(add, sums, self._added))

    def histograms(self) -> list[tuple[int, ...]]:
        """Rows of (sum_ns, count in each bucket), in the order of boundary.Latency."""
        code = f"={boundary.HISTOGRAM_BUCKETS + 1}Q"
        rows = [self._sum_per_cpu("histogram", row, code) for row in range(boundary.LATENCIES)]
        rows[boundary.Latency.LOOKUP] = tuple(map(add, rows[boundary.Latency.LOOKUP], self._added_latency))
        return rows

    def _sum_per_cpu(self, name: str, index: int, code: str) -> tuple[int, ...]:
        raw = self._maps[name].get(U32.pack(index)) or b""
        rows = list(struct.iter_unpack(code, raw))
        return tuple(map(sum, zip(*rows, strict=True))) if rows else (0,) * struct.calcsize(code)

    def open_lookups(self, older_than_ns: int) -> list[bytes]:
        """Records of lookups that began before a time, or before tracing did, and have not ended.

        Those of followed daemons are there whatever their age, and those that have no socket any more.
        """

        def is_wanted(raw: memoryview, at: int) -> bool:
            if raw[at + LOOKUP_STATUS_AT]:
                return False
            flags, start_ns = struct.unpack_from("=I8xQ", raw, at + 4)
            return start_ns < older_than_ns or bool(flags & OF_ANY_AGE)

        return list(self._select("lookups", boundary.LOOKUP_BYTES, is_wanted))

    def take_ended_lookups(self) -> list[bytes]:
        """Frames of lookups that ended when the ring was full: they waited in the map, and leave it now."""
        keys, values, count = self._maps["lookups"].items()
        size, found = boundary.LOOKUP_BYTES, {}
        for i, key in enumerate(_words(keys, count)):
            if key != U64.unpack_from(values, i * size + 8)[0]:  # they wait under another key than their own
                found[key] = bytes(values[i * size : (i + 1) * size])
        return [raw for key, raw in found.items() if self.drop_lookup(key)]

    def open_connects(self, older_than_ns: int) -> list[bytes]:
        """Records of connects that began before a time; of two for one connect the socket's own.

        Those of followed daemons are there whatever their age.
        """

        def is_wanted(raw: memoryview, at: int) -> bool:
            (flags,) = U32.unpack_from(raw, at + 4)
            is_old = U64.unpack_from(raw, at + 16)[0] < older_than_ns
            return not flags & boundary.ConnectFlag.IS_LINK and (is_old or bool(flags & ANY_AGE))

        return list(self._select("connects", boundary.CONNECT.size, is_wanted))

    def open_handshakes(self, older_than_ns: int) -> list[bytes]:
        """Struct connect of TLS handshakes whose first message left before a time and has no answer."""

        def is_wanted(raw: memoryview, at: int) -> bool:
            is_tls = raw[at + 4] & boundary.ConnectFlag.IS_TLS
            return bool(is_tls) and U64.unpack_from(raw, at + 16)[0] < older_than_ns

        return list(self._select("handshakes", boundary.CONNECT.size, is_wanted))

    def given_addresses(self) -> list[tuple[int, int, int, bytes, int]]:
        """(key of the lookup, its start_ns, address family, address, when last connected to) of each one."""
        keys, values, count = self._maps["given"].items()
        found = []
        for i in range(count):
            _, family, address = GIVEN_KEY.unpack_from(keys, i * GIVEN_KEY.size)
            key, start_ns, connected_ns = GIVEN.unpack_from(values, i * GIVEN.size)
            found.append((key, start_ns, family, address, connected_ns))
        return found

    def open_calls(self, older_than_ns: int) -> list[tuple[int, bytes]]:
        """(key, struct call) of calls that began before a time, or before tracing did, and have no record."""
        keys, values, count = self._maps["calls"].items()
        size = boundary.CALL.size
        found = []
        for i, (start_ns,) in enumerate(struct.iter_unpack(f"=Q{size - 8}x", values[: count * size])):
            if start_ns and (start_ns < older_than_ns or values[i * size + CALL_IS_EARLIER_AT]):
                raw = bytes(values[i * size : (i + 1) * size])
                is_known_otherwise = raw[CALL_AT["has_record"]] or raw[CALL_AT["is_paused"]]
                if not (is_known_otherwise or raw[CALL_AT["role"]]):  # a part of a goroutine's lookup
                    found.append((U64.unpack_from(keys, 8 * i)[0], raw))
        return found

    def goroutines_of(self, pid: int) -> list[tuple[int, bytes]]:
        """(key, struct call) of the goroutines of a process that are in a lookup, or work for one."""
        keys, values, count = self._maps["calls"].items()
        size, at = boundary.CALL.size, CALL_AT["pid"]
        return [
            (key, bytes(values[i * size : (i + 1) * size]))
            for i, key in enumerate(_words(keys, count))
            if boundary.is_go_key(key) and U32.unpack_from(values, i * size + at)[0] == pid
        ]

    def hold_goroutine(self, key: int, call: bytes) -> bool:
        """Let a goroutine be in a lookup from before tracing, or work for one; False when it is known."""
        try:
            self._maps["calls"].add(U64.pack(key), call)
        except OSError:
            return False
        return True

    def forget_goroutine(self, key: int) -> bool:
        """It is gone; whether it was still there."""
        return self._maps["calls"].remove(U64.pack(key))

    def calls_in_flight(self) -> Iterator[tuple[int, memoryview]]:
        """(key, struct call) of every call that has not returned, with a record or without."""
        keys, values, count = self._maps["calls"].items()
        size = boundary.CALL.size
        for i, key in enumerate(_words(keys, count)):
            raw = values[i * size : (i + 1) * size]
            if U64.unpack_from(raw)[0]:  # start_ns
                yield key, raw

    def waits(self, returned_before_ns: int | None) -> list[tuple[int, bytes]]:
        """(key, struct wait) of threads that came back to an event loop before a time; None: of all."""
        keys, values, count = self._maps["waits"].items()
        size = boundary.WAIT.size
        head = struct.iter_unpack(
            f"=8xQ{WAIT_RETURNS_AT - 16}xH{size - WAIT_RETURNS_AT - 2}x", values[: count * size]
        )
        return [
            (U64.unpack_from(keys, 8 * i)[0], bytes(values[i * size : (i + 1) * size]))
            for i, (return_ns, returns) in enumerate(head)
            if returned_before_ns is None or (returns and return_ns < returned_before_ns)
        ]

    def queued(self, older_than_ns: int) -> list[tuple[int, bytes]]:
        """(key, struct call) of requests that came into a thread pool's queue before a time."""
        keys, values, count = self._maps["queued"].items()
        size = boundary.CALL.size
        return [
            (U64.unpack_from(keys, 8 * i)[0], bytes(values[i * size : (i + 1) * size]))
            for i in range(count)
            if U64.unpack_from(values, i * size)[0] < older_than_ns
        ]

    def has_queued(self) -> bool:
        """Whether there may be a request in a thread pool's queue."""
        return self._maps["queued"].has_any()

    def forget_queued(self, key: int) -> None:
        """A thread has begun with it."""
        self._maps["queued"].remove(U64.pack(key))

    def answers_of(self) -> list[tuple[bytes, bytes]]:
        """(struct server_key, struct server_answers) of each process and server."""
        found = self._maps["answers_of"]
        keys, values, count = found.items()
        key, value = found.key_bytes, found.value_bytes
        return [
            (bytes(keys[i * key : (i + 1) * key]), bytes(values[i * value : (i + 1) * value]))
            for i in range(count)
        ]

    def wait_of(self, key: int) -> bytes | None:
        """A thread's struct wait."""
        return self._maps["waits"].get(U64.pack(key))

    def call_of(self, key: int) -> bytes | None:
        """A thread's struct call."""
        return self._maps["calls"].get(U64.pack(key))

    def hold_earlier_call(self, key: int, thread_key: int, call: bytes) -> bool:
        """Let a thread be in a call that began before tracing; False when it has made another one since."""
        try:
            self._maps["calls"].add(U64.pack(key), call)
        except OSError:
            return False  # the map is full, or it is known
        if self._maps["calls"].get(U64.pack(thread_key)) is not None and self.take_earlier_call(key):
            return False
        self.count_found(boundary.Counter.LOOKUPS_STARTED)
        return True

    def hold_earlier_connect(self, key: int, connect: bytes) -> bool:
        """Let a thread be in a connect() that began before tracing; False when it is in another one since."""
        try:
            self._maps["connects"].add(U64.pack(key), connect)
        except OSError:
            return False
        return True

    def count_found(self, counter: boundary.Counter, by: int = 1) -> None:
        """Count what was under way when tracing began as started."""
        self._added[counter] += by

    def earlier_call(self, key: int) -> bytes | None:
        """The struct call of a lookup that began before tracing; None when the kernel has ended it."""
        return self._maps["calls"].get(U64.pack(key))

    def take_earlier_call(self, key: int) -> bytes | None:
        """The same, and it is ended by us: nobody else can any more."""
        found = self.earlier_call(key)
        return found if found is not None and self._maps["calls"].remove(U64.pack(key)) else None

    def lookup_of(self, key: int) -> bytes | None:
        """The record under a key."""
        return self._maps["lookups"].get(U64.pack(key))

    def drop_lookup(self, key: int) -> bool:
        """Forget a wire lookup that nothing will end; whether it was still there."""
        return self._maps["lookups"].remove(U64.pack(key))

    def forget_question(self, socket: int, number: int) -> None:
        """Nobody waits for its answer any more."""
        self._maps["asked"].remove(struct.pack("=QQ", socket, number))

    def count_dropped_supporting(self) -> None:
        """A question of a followed daemon was dropped: there is room for another one."""
        dropped = self._maps["supporting"].get(U32.pack(1)) or bytes(U64.size)
        self._maps["supporting"].set(U32.pack(1), U64.pack(U64.unpack(dropped)[0] + 1))

    def questions(self) -> list[tuple[int, int, int]]:
        """(socket, id, key of its lookup) of every question that an answer would be matched to."""
        keys, values, count = self._maps["asked"].items()
        asked = struct.iter_unpack("=QQ", keys[: 16 * count])
        return [
            (socket, number, key) for (socket, number), key in zip(asked, _words(values, count), strict=True)
        ]

    def has_lookup(self, key: int) -> bool:
        """Whether there is a record under this key."""
        return self._maps["lookups"].get(U64.pack(key)) is not None

    def closed_sockets(self) -> dict[int, int]:
        """Sockets closed with more lookups open than they remember, and when (monotonic)."""
        keys, values, count = self._maps["closed_sockets"].items()
        return dict(zip(_words(keys, count), _words(values, count), strict=True))

    def forget_closed_socket(self, socket: int) -> None:
        """Its lookups are ended."""
        self._maps["closed_sockets"].remove(U64.pack(socket))

    def count_end(self, counter: boundary.Counter, took_ns: int | None = None, unanswered: int = 0) -> None:
        """Count what was dropped as ended, as the programs would have done."""
        self._added[counter] += 1
        self._added[boundary.Counter.QUERIES_UNANSWERED] += unanswered
        if took_ns is not None:
            bucket = min((took_ns >> boundary.HISTOGRAM_SHIFT).bit_length(), boundary.HISTOGRAM_BUCKETS - 1)
            self._added_latency[0] += took_ns
            self._added_latency[1 + bucket] += 1

    def drop_connect(self, key: int) -> bool:
        """Forget a connect whose end was not told; whether it was still there."""
        self._maps["connect_tokens"].remove(U64.pack(key))
        return self._maps["connects"].remove(U64.pack(key))

    def _select(self, name: str, size: int, wanted: Callable[[memoryview, int], bool]) -> Iterator[bytes]:
        _, values, count = self._maps[name].items()
        for i in range(count):
            if wanted(values, i * size):
                yield bytes(values[i * size : (i + 1) * size])

    # What it costs.

    def map_bytes(self) -> int | None:
        """Memory of all maps, as the kernel accounts it; None when it does not say."""
        total = 0
        for entry in self._maps.values():
            try:
                text = Path(f"/proc/self/fdinfo/{entry.fd}").read_text()
            except OSError:
                return None
            total += next(
                (int(line.split()[1]) for line in text.splitlines() if line.startswith("memlock:")), 0
            )
        return total


def is_earlier(key: int) -> bool:
    """Whether it is the key of a call that was under way when tracing began (wire keys may have any bits)."""
    return key >> 62 == 1


def _words(raw: memoryview, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"={count}Q", raw)


def _possible_cpus() -> int:
    """How many values a per-CPU map has for each key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]
    return int(last) + 1
