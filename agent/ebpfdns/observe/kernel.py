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
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.model import boundary
from ebpfdns.observe import bpf_calls, go_probes, perf_events, probes, programs, sources
from ebpfdns.observe.kernel_maps import KernelMaps
from ebpfdns.observe.loading import Loading
from ebpfdns.observe.ring import Ring

if TYPE_CHECKING:
    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.libraries import Library
    from ebpfdns.observe.thread_pools import Pool

PROG_INFO_BYTES = 224
FRAMES_A_READ = 4096
CLOSERS = 64
#: the kernel lets two tracers probe one place only with the same counter (dmesg: "ref_ctr_offset mismatch")
OTHER_TRACER = "another tracer has a probe there that shuts others out (the tools of bcc 0.26 do)"
RIGHTS = "run it as root, or with CAP_SYS_ADMIN (a container: see docs/deployment.md)"


class Kernel:
    """A context manager. Everything below may raise OSError or HostCannotTraceError only while attaching."""

    def __init__(self, variant: sources.Variant, tracefs: Path) -> None:
        self.variant = variant
        self._tracefs = tracefs
        self._fds: list[int] = []
        self._cgroups: set[int] = set()
        self._libraries: set[tuple[int, int, int]] = set()
        self._not_probed: dict[tuple[int, int, int], list[str]] = {}
        self._call_fds: dict[int, list[int]] = {}
        self.losses: list[str] = []
        self.has_wire = False

    def __enter__(self) -> Self:
        self._plan = programs.compiled(self.variant)
        try:
            self.maps = KernelMaps(self._plan.maps)
        except OSError as error:
            raise _refused("make the BPF maps", error) from error
        self._fds += self.maps.fds.values()
        self._loading = Loading(self._plan, self.maps.fds, by_link=self.variant.linked_calls)
        self._loading.begin(self._wanted())
        self.ring = Ring(self.maps.fds["frames"], self.maps.ring_bytes)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach and unload everything."""
        if hasattr(self, "ring"):
            self.ring.close()
            self._fds += self._loading.close()
        _close_side_by_side([fd for fds in self._call_fds.values() for fd in fds])
        _close_side_by_side(self._fds)
        self._fds, self._call_fds = [], {}

    # Loading.

    def _load(self, function: str) -> int:
        """The descriptor of one function's program."""
        return self._loading.fd(function)

    def _needed(self) -> list[str]:
        """What every target needs: the programs at library calls, which reach each other by tail calls."""
        entries = [probes.ALL_CALLS_FUNCTION] if self.variant.linked_calls else [*probes.CALLS.values()]
        return [probes.RARE_FUNCTION, probes.RETURN_FUNCTION, *entries]

    def _wanted(self) -> list[str]:
        """What will be asked for, as far as is known now."""
        packets = [hook.function for hook in probes.CGROUP_HOOKS] + [name for _, name in probes.TAIL_CALLS]
        return self._needed() + packets + [point.function for point in self._tracepoints()]

    def _load_needed(self) -> None:
        try:
            for function in self._needed():
                self._load(function)
        except OSError as error:
            raise _refused("load the BPF programs", error) from error
        self._set_tail_call("rare_programs", probes.RARE_FUNCTION)

    def _set_tail_call(self, map_name: str, function: str) -> None:
        self.maps.set_tail_call(map_name, self._load(function))

    # Attaching.

    def _tracepoints(self) -> list[probes.Tracepoint]:
        wanted = [*probes.TRACEPOINTS] if self.variant.socket_places is None else probes.with_places()
        if self.variant.follow_children:
            wanted.append(probes.FOLLOW)
            wanted += probes.FOLLOW_INSIDE if self.variant.pid_namespace else ()
        is_arm = os.uname().machine == "aarch64"
        return [point for point in wanted if not (is_arm and point.call in probes.ONLY_AMD64)]

    def attach_host_wide(self) -> None:
        """Tracepoints: one program each for all targets, which asks first who is running."""
        self._load_needed()
        for point in self._tracepoints():
            if point.function not in self._plan.functions:  # this kernel lacks what it needs
                self.losses.append(point.loss)
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

    def is_probed(self, library: Library) -> bool:
        """Whether the functions of this library are probed, for all processes that have it."""
        return (library.device, library.inode, -1) in self._libraries

    def is_file_probed(self, path: str) -> bool:
        """The same of the file at this path."""
        try:
            status = Path(path).stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino, -1) in self._libraries

    def attach_library(self, library: Library, pid: int, alive_tid: int) -> list[str]:
        """Probe the functions of a library this process has mapped; what could not be. Twice is once."""
        bound_to = -1 if self.variant.filter_calls else pid
        place = (library.device, library.inode, bound_to)
        if place in self._libraries:
            return self._not_probed.get(place, [])
        self._libraries.add(place)
        wanted = {name: offset for name, offset in library.functions.items() if _canonical(name)}
        if not wanted:
            return []
        fds = self._call_fds.setdefault(bound_to, [])
        try:
            if self.variant.linked_calls:
                missing = self._link_calls(library.path, wanted, max(bound_to, 0), fds)
            else:
                missing = self._probe_calls(library.path, wanted, alive_tid if bound_to >= 0 else -1, fds)
        except ProcessLookupError:
            raise
        except OSError as error:
            raise _refused(f"probe {library.path}", error) from error
        if missing:
            self._not_probed[place] = missing
        return missing

    def attach_pool(self, pool: Pool, pid: int, alive_tid: int) -> list[str]:
        """See what this process puts into libuv's queue; what could not be. Twice is once."""
        bound_to = -1 if self.variant.filter_calls else pid
        place = (pool.device, pool.inode, bound_to)
        if place in self._libraries:
            return []
        fds = self._call_fds.setdefault(bound_to, [])
        try:
            program_fd = self._load(probes.POOL_FUNCTION)
            if self.variant.linked_calls:
                begins = bpf_calls.link_uprobes(
                    program_fd, pool.path, [pool.offset], [0], max(bound_to, 0), is_return=False
                )
            else:
                tid = alive_tid if bound_to >= 0 else -1
                begins = perf_events.attach_uprobe(
                    program_fd, pool.path, pool.offset, is_return=False, pid=tid
                )
        except ProcessLookupError:
            raise
        except OSError as error:
            return [f"lookups that wait for a thread of libuv's pool ({error.strerror})"]
        self._libraries.add(place)
        fds.append(begins)
        return []

    def attach_go(self, program: GoProgram, pid: int, alive_tid: int) -> list[str]:
        """Probe Go's resolver in a program that this process runs; what could not be. Twice is once."""
        bound_to = -1 if self.variant.filter_calls else pid
        place = (program.device, program.inode, bound_to)
        if place in self._libraries:
            return []
        made: list[int] = []
        try:
            for wanted in go_probes.places(program):
                made += self._attach_places(program.path, wanted, bound_to, alive_tid)
        except ProcessLookupError:
            _close_side_by_side(made)
            raise
        except OSError as error:
            _close_side_by_side(made)
            return [f"Go's own resolver: probes are refused ({error.strerror})"]
        self._libraries.add(place)
        self._call_fds.setdefault(bound_to, []).extend(made)
        return []

    def _attach_places(self, path: str, wanted: go_probes.Places, bound_to: int, alive_tid: int) -> list[int]:
        """One program at all its places: by one link, before 6.10 one by one."""
        program_fd = self._load(wanted.function)
        if self.variant.linked_calls:
            pid = max(bound_to, 0)
            return [
                bpf_calls.link_uprobes(program_fd, path, wanted.offsets, wanted.cookies, pid, is_return=False)
            ]
        pid = alive_tid if bound_to >= 0 else -1
        made: list[int] = []
        try:
            for offset, cookie in zip(wanted.offsets, wanted.cookies, strict=True):
                event_fd = perf_events.open_uprobe(path, offset, pid=pid)
                made.append(event_fd)
                made.append(bpf_calls.link_event(program_fd, event_fd, cookie))
        except OSError:
            _close_side_by_side(made)
            raise
        return made

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
        self._not_probed = {place: text for place, text in self._not_probed.items() if place[2] != pid}
        _close_side_by_side(self._call_fds.pop(pid, []))

    # Reading.

    def read_frames(self) -> list[bytes]:
        """What has ended since the last call."""
        return self.ring.read(FRAMES_A_READ)

    def run_time(self) -> tuple[int, int] | None:
        """(nanoseconds, runs) of all programs; None unless kernel.bpf_stats_enabled is set, for it costs."""
        with contextlib.suppress(OSError):
            if Path("/proc/sys/kernel/bpf_stats_enabled").read_text().strip() == "1":
                infos = [bpf_calls.read_info(fd, PROG_INFO_BYTES) for fd in self._loading.fds()]
                times = [struct.unpack_from("=QQ", info, 192) for info in infos]
                return sum(time[0] for time in times), sum(time[1] for time in times)
        return None

    def missed_runs(self) -> int:
        """How often a program could not run: another one was running on that CPU (recursion_misses, 5.12)."""
        total = 0
        for fd in self._loading.fds():
            with contextlib.suppress(OSError):
                total += struct.unpack_from("=Q", bpf_calls.read_info(fd, PROG_INFO_BYTES), 208)[0]
        return total


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
