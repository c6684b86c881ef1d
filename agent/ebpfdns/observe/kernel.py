"""The programs in the kernel: loaded, attached, told about targets, read, and gone when this object is.

Owns: every BPF descriptor. Must not know: what the bytes mean (`model.decode`), or when to read them.
All attachments are descriptors (perf events, links), so the kernel removes them however this process ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.model import boundary
from ebpfdns.observe import bpf_calls, perf_events, probes, programs, sources
from ebpfdns.observe.bpf_calls import Map
from ebpfdns.observe.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ebpfdns.observe.libraries import Library

U32, U64 = struct.Struct("=I"), struct.Struct("=Q")
PID_BITS = 65_536
PROG_INFO_BYTES, MAP_INFO_BYTES = 224, 80
FRAMES_A_READ = 4096
CLOSERS = 64
#: the kernel lets two tracers probe one place only with the same counter (dmesg: "ref_ctr_offset mismatch")
OTHER_TRACER = "another tracer has a probe there that shuts others out (the tools of bcc 0.26 do)"
LOOKUP_STATUS_AT = {name: at for name, at, _ in boundary.LOOKUP.offsets()}["status"]
RIGHTS = "run it as root, or with CAP_SYS_ADMIN (a container: see docs/deployment.md)"


@dataclass(slots=True)
class Attached:
    """What could be attached for all targets together: the losses are what cannot be seen."""

    losses: list[str] = field(default_factory=list)


class Kernel:
    """A context manager. Everything below may raise OSError or HostCannotTraceError only while attaching."""

    def __init__(self, variant: sources.Variant, tracefs: Path) -> None:
        self.variant = variant
        self._tracefs = tracefs
        self._fds: list[int] = []
        self._programs: dict[str, int] = {}
        self._cgroups: set[int] = set()
        self._libraries: set[tuple[int, int, int]] = set()
        self._call_fds: dict[int, list[int]] = {}
        self.losses: list[str] = []
        self.has_wire = False
        #: what the agent has ended itself, in addition to the kernel's own counts
        self._added = [0] * len(boundary.Counter)
        self._added_latency = [0] * (boundary.HISTOGRAM_BUCKETS + 1)

    def __enter__(self) -> Self:
        plan = programs.compiled(self.variant)
        self._maps = self._make_maps(plan)
        self._plan = plan
        self._fds_of_maps = {name: entry.fd for name, entry in self._maps.items()}
        try:
            self._load_needed()
        except BaseException:
            self.close()
            raise
        ring = self._maps["frames"]
        self.ring = Ring(ring.fd, ring.entries)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and unload everything."""
        if hasattr(self, "ring"):
            self.ring.close()
        _close_side_by_side([fd for fds in self._call_fds.values() for fd in fds])
        _close_side_by_side(self._fds)
        self._fds, self._call_fds, self._programs = [], {}, {}

    # Loading.

    def _make_maps(self, plan: programs.Compiled) -> dict[str, Map]:
        made = {}
        cpus = _possible_cpus()
        for wanted in plan.maps:
            arguments = (
                wanted.kind,
                wanted.name,
                wanted.key_bytes,
                wanted.value_bytes,
                wanted.entries,
                wanted.flags,
            )
            try:
                fd = bpf_calls.create_map(*arguments)
            except OSError as error:
                self.close()
                raise _refused(f"make the BPF map {wanted.name}", error) from error
            self._fds.append(fd)
            is_per_cpu = wanted.kind == bpf_calls.MAP_TYPE_PERCPU_ARRAY
            value_bytes = -(-wanted.value_bytes // 8) * 8 * cpus if is_per_cpu else wanted.value_bytes
            made[wanted.name] = Map(fd, wanted.key_bytes, value_bytes, wanted.entries)
        self._cpus = cpus
        return made

    def _load(self, function: str) -> int:
        """Load one function, once; its descriptor."""
        if function not in self._programs:
            kind, attach_type = probes.program_kind(function, by_link=self.variant.linked_calls)
            code = programs.relocated(self._plan, function, self._fds_of_maps)
            fd = bpf_calls.load_program(kind, attach_type, function, code, self._plan.licence)
            self._fds.append(fd)
            self._programs[function] = fd
        return self._programs[function]

    def _load_needed(self) -> None:
        """What every target needs: the programs at library calls, which reach each other by tail calls."""
        entries = (probes.ALL_CALLS_FUNCTION,) if self.variant.linked_calls else tuple(probes.CALLS.values())
        try:
            for function in (probes.RARE_FUNCTION, probes.RETURN_FUNCTION, *entries):
                self._load(function)
        except OSError as error:
            raise _refused("load the BPF programs", error) from error
        self._set_tail_call("rare_programs", probes.RARE_FUNCTION)

    def _set_tail_call(self, map_name: str, function: str) -> None:
        self._maps[map_name].set(U32.pack(0), U32.pack(self._load(function)))

    # Attaching.

    def attach_host_wide(self) -> None:
        """Tracepoints: one program each for all targets, which asks first who is running."""
        wanted = [*probes.TRACEPOINTS]
        if self.variant.follow_children:
            wanted.append(probes.FOLLOW)
            wanted += probes.FOLLOW_INSIDE if self.variant.pid_namespace else ()
        for point in wanted:
            call = point.event.removeprefix("syscalls/sys_enter_").removeprefix("syscalls/sys_exit_")
            if os.uname().machine == "aarch64" and call in probes.ONLY_AMD64:
                continue
            try:
                program_fd = self._load(point.function)
                if point.is_raw:
                    self._fds.append(bpf_calls.open_raw_tracepoint(program_fd, point.event))
                else:
                    self._fds.append(perf_events.attach_tracepoint(program_fd, self._tracefs, point.event))
            except OSError as error:
                if point.is_needed or error.errno in (errno.EPERM, errno.EACCES):
                    raise _refused(f"attach to the tracepoint {point.event}", error) from error
                if point.loss not in self.losses:
                    self.losses.append(point.loss)

    def attach_cgroup(self, directory: Path) -> str | None:
        """See the DNS packets of this cgroup's sockets; what is missing when that cannot be, or None."""
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            return f"DNS packets: the cgroup {directory} cannot be opened ({error.strerror})"
        inode = os.fstat(fd).st_ino
        try:
            if inode in self._cgroups:
                return None
            links: list[int] = []
            try:
                links.extend(
                    bpf_calls.link_cgroup(self._load(hook.function), fd, hook.attach_type)
                    for hook in probes.CGROUP_HOOKS
                )
                for map_name, function in probes.TAIL_CALLS:
                    self._set_tail_call(map_name, function)
            except OSError as error:
                for link in links:
                    os.close(link)
                return f"DNS packets: programs on a cgroup are refused here ({error.strerror})"
            self._fds += links
            self._cgroups.add(inode)
            self.has_wire = True
            return None
        finally:
            os.close(fd)

    def attach_library(self, library: Library, pid: int, alive_tid: int) -> list[str]:
        """Probe the functions of a library this process has mapped; what could not be. Twice is once."""
        bound_to = -1 if self.variant.filter_calls else pid
        place = (library.device, library.inode, bound_to)
        if place in self._libraries:
            return []
        self._libraries.add(place)
        wanted = {name: offset for name, offset in library.functions.items() if _canonical(name)}
        if not wanted:
            return []
        fds = self._call_fds.setdefault(bound_to, [])
        try:
            if self.variant.linked_calls:
                return self._link_calls(library.path, wanted, max(bound_to, 0), fds)
            return self._probe_calls(library.path, wanted, alive_tid if bound_to >= 0 else -1, fds)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise _refused(f"probe {library.path}", error) from error

    def _link_calls(self, path: str, wanted: dict[str, int], pid: int, fds: list[int]) -> list[str]:
        """All at once, by two links; one by one where another tracer is in the way of some."""
        try:
            fds += self._link(path, wanted, pid)
        except OSError as error:
            if error.errno != errno.EINVAL or len(wanted) == 1:
                raise
        else:
            return []
        missing = []
        for name, offset in wanted.items():
            try:
                fds += self._link(path, {name: offset}, pid)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                missing.append(f"{name}: {OTHER_TRACER}")
        return missing

    def _link(self, path: str, wanted: dict[str, int], pid: int) -> list[int]:
        """Returns first: a call that begins in between is not seen, instead of staying open."""
        offsets = list(wanted.values())
        cookies = [int(boundary.Api[_canonical(name).upper()]) for name in wanted]
        return_fd, entry_fd = self._load(probes.RETURN_FUNCTION), self._load(probes.ALL_CALLS_FUNCTION)
        ends = bpf_calls.link_uprobes(return_fd, path, offsets, cookies, pid, is_return=True)
        try:
            return [ends, bpf_calls.link_uprobes(entry_fd, path, offsets, cookies, pid, is_return=False)]
        except OSError:
            os.close(ends)
            raise

    def _probe_calls(self, path: str, wanted: dict[str, int], pid: int, fds: list[int]) -> list[str]:
        """One by one, before 6.10."""
        missing = []
        for name, offset in wanted.items():
            try:
                for function, is_return in (
                    (probes.RETURN_FUNCTION, True),
                    (probes.CALLS[_canonical(name)], False),
                ):
                    fd = self._load(function)
                    fds.append(perf_events.attach_uprobe(fd, path, offset, is_return=is_return, pid=pid))
            except ProcessLookupError:
                raise
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    raise
                missing.append(f"{name}: {error.strerror}")
        return missing

    def forget_libraries(self, pid: int) -> None:
        """The process runs another program now, or is gone: its probes are of no use any more."""
        self._libraries = {place for place in self._libraries if place[2] != pid}
        _close_side_by_side(self._call_fds.pop(pid, []))

    # Telling.

    def set_options(self, slow_after_ns: int, *, publish_all: bool) -> None:
        """What is worth a frame when it ends."""
        self._maps["settings"].set(U32.pack(0), struct.pack("=QII", slow_after_ns, int(publish_all), 0))

    def add_target(self, pid: int, now_ns: int) -> None:
        """From now on this process counts."""
        self._maps["targets"].set(U32.pack(pid), U64.pack(now_ns))
        self._set_bit(pid, is_set=True)

    def remove_target(self, pid: int) -> None:
        """It does not count any more."""
        self._maps["targets"].remove(U32.pack(pid))
        others = {
            U32.unpack_from(keys, 4 * i)[0]
            for keys, _, n in [self._maps["targets"].items()]
            for i in range(n)
        }
        if not any(other % PID_BITS == pid % PID_BITS for other in others):
            self._set_bit(pid, is_set=False)

    def _set_bit(self, pid: int, *, is_set: bool) -> None:
        index = U32.pack((pid % PID_BITS) >> 6)
        word = U64.unpack(self._maps["target_bits"].get(index) or bytes(8))[0]
        bit = 1 << (pid & 63)
        self._maps["target_bits"].set(index, U64.pack(word | bit if is_set else word & ~bit))

    # Reading.

    def read_frames(self) -> list[bytes]:
        """What has ended since the last call."""
        return self.ring.read(FRAMES_A_READ)

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
        """Records of lookups that began before a time and have not ended."""

        def is_wanted(raw: memoryview, at: int) -> bool:
            return not raw[at + LOOKUP_STATUS_AT] and U64.unpack_from(raw, at + 16)[0] < older_than_ns

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
        """Records of connects that began before a time; of two for one connect the socket's own."""

        def is_wanted(raw: memoryview, at: int) -> bool:
            is_link = raw[at + 4] & boundary.ConnectFlag.IS_LINK
            return not is_link and U64.unpack_from(raw, at + 16)[0] < older_than_ns

        return list(self._select("connects", boundary.CONNECT.size, is_wanted))

    def open_calls(self, older_than_ns: int) -> list[tuple[int, bytes]]:
        """(key, struct call) of calls that began before a time, have not returned, and have no record."""
        keys, values, count = self._maps["calls"].items()
        size = boundary.CALL.size
        found = []
        for i, (start_ns,) in enumerate(struct.iter_unpack(f"=Q{size - 8}x", values[: count * size])):
            if start_ns and start_ns < older_than_ns:
                raw = bytes(values[i * size : (i + 1) * size])
                if not (raw[73] or raw[74]):  # has_record, is_paused
                    found.append((U64.unpack_from(keys, 8 * i)[0], raw))
        return found

    def wait_of(self, key: int) -> bytes | None:
        """A thread's struct wait."""
        return self._maps["waits"].get(U64.pack(key))

    def call_of(self, key: int) -> bytes | None:
        """A thread's struct call."""
        return self._maps["calls"].get(U64.pack(key))

    def drop_lookup(self, key: int) -> bool:
        """Forget a wire lookup that nothing will end; whether it was still there."""
        return self._maps["lookups"].remove(U64.pack(key))

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

    def run_time(self) -> tuple[int, int] | None:
        """(nanoseconds, runs) of all programs; None unless kernel.bpf_stats_enabled is set, for it costs."""
        with contextlib.suppress(OSError):
            if Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() == "1":
                infos = [bpf_calls.read_info(fd, PROG_INFO_BYTES) for fd in self._programs.values()]
                times = [struct.unpack_from("=QQ", info, 192) for info in infos]
                return sum(time[0] for time in times), sum(time[1] for time in times)
        return None

    def missed_runs(self) -> int:
        """How often a program could not run: another one was running on that CPU (recursion_misses, 5.12)."""
        total = 0
        for fd in self._programs.values():
            with contextlib.suppress(OSError):
                total += struct.unpack_from("=Q", bpf_calls.read_info(fd, PROG_INFO_BYTES), 208)[0]
        return total


def _words(raw: memoryview, count: int) -> tuple[int, ...]:
    return struct.unpack_from(f"={count}Q", raw)


def _canonical(name: str) -> str:
    """The probe's name of a library function: __res_nquery is res_nquery. Empty: there is no probe."""
    plain = name if name in probes.CALLS else name.lstrip("_")
    return plain if plain in probes.CALLS else ""


def _refused(attempt: str, error: OSError) -> HostCannotTraceError:
    """Say what the kernel refused, with the most likely remedy."""
    log = getattr(error, "log", "")
    detail = f"\n{log.strip()[-2000:]}" if log else ""
    remedy = RIGHTS if error.errno in (errno.EPERM, errno.EACCES) and not log else "ebpfdns doctor"
    return HostCannotTraceError(f"cannot {attempt}: {error.strerror or error}{detail}", remedy=remedy)


def _close_side_by_side(fds: list[int]) -> None:
    """Close many at once: each waits 50 ms or more until no CPU can be in it, and so they wait together."""

    def close(fd: int) -> None:
        with contextlib.suppress(OSError):
            os.close(fd)

    if fds:
        with ThreadPoolExecutor(max_workers=min(len(fds), CLOSERS)) as pool:
            list(pool.map(close, fds))


def _possible_cpus() -> int:
    """How many values a per-CPU map has for each key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]
    return int(last) + 1
