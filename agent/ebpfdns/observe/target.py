"""One traced process: what it is, what of it can be seen, and that it is still the same one.

Owns: its pidfd and the coverage that the `target` line tells. Must not know: BPF beyond `Kernel`'s verbs.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import select
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfdns.correlate import items
from ebpfdns.errors import HostCannotTraceError, NoSuchTargetError
from ebpfdns.observe import (
    cgroups,
    foretelling,
    go_surroundings,
    libraries,
    proc_files,
    processes,
    thread_pools,
)
from ebpfdns.observe.go_attachment import GoAttachment
from ebpfdns.publish.lines import printable_text, rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.processes import Process


#: Nothing is worth the target's life: such a process is known from its packets only.
DEADLY = (
    "library calls: on this kernel (6.11 to 6.13) a return probe can kill a process that has a seccomp filter"
)
REFUSED = "reading it was refused (the agent needs CAP_SYS_PTRACE; for other users' also DAC_READ_SEARCH)"
LATE = "calls of its first moments, before it was probed: these lookups are known from packets only"
#: From 6.10 on each packet tells who sends it.
UDP_SOCKETS_BEFORE = "DNS packets on UDP sockets that were connected before (seen from Linux 6.10 on)"


class Target:
    """A process that is traced; `pid` as the agent's namespace numbers it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.process: Process = processes.read_process(pid)
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise NoSuchTargetError(f"there is no process {pid}", remedy="ps -e") from error
        self.libraries: list[libraries.Library] = []
        self._go = GoAttachment(pid)
        self._wire_loss: str | None = "DNS packets: not looked for yet"
        self._failures: list[str] = []
        self._refused: str | None = None
        #: what its next program will have mapped, as far as the file says: it maps it by and by
        self._foretold: foretelling.Foretold | None = None
        self._foretold_exe = ""
        self._foretold_failures: list[str] = []
        self._began_unprobed = False  # it ran before it was looked at
        self._is_late = False
        self._is_replaced = False  # it runs another program since it was last looked at
        self.is_foretold = False
        self.is_told = False  # a line has told of the program that it runs, or is about to
        self._is_supporting = False

    def attach(self, kernel: Kernel) -> bool:
        """Probe what it has mapped now and see its packets; whether anything is new."""
        before = self.process
        self.process = processes.read_process(self.pid)
        if self.process.exe is None and not self._is_replaced:  # it is about to be gone
            self.process = replace(self.process, exe=before.exe, name=before.name)
        self._is_replaced = False
        if self.process.exe != before.exe:
            self._is_late = False
        self._refuse_other_numbers(kernel)
        self._refused = processes.refusal(self.process.alive_tid)
        found = libraries.find_libraries(self.process) or self._foretold_libraries()
        known = {(library.device, library.inode) for library in self.libraries}
        is_new = {(library.device, library.inode) for library in found} != known
        self.libraries = found
        if self._could_be_killed(kernel):
            self._failures = [DEADLY]
            found = []
        if self._began_unprobed and any(one.functions and not kernel.is_probed(one) for one in found):
            self._is_late = True
        self._attach_libraries(kernel, found)
        if self._attach_go(kernel, f"/proc/{self.process.alive_tid}/exe") and self._began_unprobed:
            self._is_late = True
        self._failures += self._go.attach_mapped(kernel, self.process.alive_tid)
        for pool in thread_pools.find_pools(self.process):
            self._failures += kernel.attach_pool(pool, self.pid, self.process.alive_tid)
        if self._wire_loss is not None or self.process.cgroup2_path != before.cgroup2_path:
            self._wire_loss = self._attach_wire(kernel)
        return is_new

    def _attach_libraries(self, kernel: Kernel, found: Sequence[libraries.Library]) -> None:
        for library in found:
            try:
                told = kernel.attach_library(library, self.pid, self.process.alive_tid)
                self._failures += [text for text in told if text not in self._failures]
            except (HostCannotTraceError, ProcessLookupError):
                if self.has_exited():
                    raise NoSuchTargetError(f"process {self.pid} ended while it was being attached") from None
                raise

    def _attach_go(self, kernel: Kernel, path: str) -> bool:
        """Whether a Go program is there that nobody had run before."""
        before = self._go.program
        was_probed = kernel.is_file_probed(path)
        self._failures += self._go.attach(kernel, path, self.process.alive_tid)
        is_new = self._go.program is not None and self._go.program is not before
        return is_new and self._go.is_seen and not was_probed

    @property
    def go(self) -> GoProgram | None:
        """What is known of its program, when Go built it."""
        return self._go.program

    def support(self, kernel: Kernel) -> None:
        """See its packets only: it is a daemon that targets ask."""
        self._refuse_other_numbers(kernel)
        self._is_supporting = True
        self._wire_loss = self._attach_wire(kernel)

    def _refuse_other_numbers(self, kernel: Kernel) -> None:
        """Processes of a pid namespace inside of the agent's own are in /proc, but have no number for BPF."""
        own, its = kernel.variant.pid_namespace, self.process.pidns_inode
        if own is not None and its not in (None, own[1]):
            raise HostCannotTraceError(
                f"process {self.pid} is in a pid namespace inside of the agent's: BPF has no number for it",
                remedy="run the agent with the host's pids (hostPID: true, docker run --pid=host)",
            )

    def _could_be_killed(self, kernel: Kernel) -> bool:
        """Whether a return probe may end a process: this one, or any where probes are not bound to one."""
        if not kernel.variant.returns_use_syscall:
            return False
        return kernel.variant.filter_calls or processes.has_seccomp_filter(self.process.alive_tid)

    def _attach_wire(self, kernel: Kernel) -> str | None:
        mount = cgroups.cgroup2_mount()
        if mount is None:
            return "DNS packets: there is no cgroup v2 tree here (mount -t cgroup2 none /sys/fs/cgroup)"
        directory = cgroups.cgroup2_directory(mount, self.process.cgroup2_path)
        if directory is None:
            return f"DNS packets: its cgroup is not in {mount.place} (mount the host's /sys/fs/cgroup there)"
        return kernel.attach_cgroup(directory.path)

    def has_exited(self) -> bool:
        """Whether the process has ended; a number that is used again later does not matter."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def was_found_running(self) -> None:
        """It is a child, or runs another program, of which nothing was known before it began."""
        self._began_unprobed = True

    def runs_another_program(self) -> None:
        """exec: everything is to be found anew."""
        self.was_found_running()
        self._is_replaced = True
        self.libraries, self._failures, self._foretold = [], [], None
        self._go.forget()

    def will_run(
        self, path: str, kernel: Kernel, known: Sequence[libraries.Library], name: str | None = None
    ) -> bool:
        """Before its exec: look at its next program, and probe what that has, so that nothing is missed.

        `path`: for us to open; `name`: as the process names it; `known`: libcs that it may map. Whether the
        next process that runs this file must be looked at, too: libc's probes are the file's, and stay.
        """
        found = foretelling.foretell(path, self.process.root, known)
        if found is None:
            return False
        if (
            self.is_foretold
            and self._foretold
            and found.key in (self._foretold.key, self._foretold.loader_key)
        ):
            # It is the same once more, or the loader that it asks for.
            return found.key == self._foretold.key and self._go.is_seen
        self._foretold = found
        present, self._failures = self._failures, []
        self._attach_libraries(kernel, found.libraries)
        self._attach_go(kernel, path)
        self._foretold_failures, self._failures = self._failures, present
        where = cgroups.unified_path(proc_files.text(f"/proc/{self.process.alive_tid}/cgroup"))
        if where != self.process.cgroup2_path:  # it was moved
            self.process = replace(self.process, cgroup2_path=where)
            self._wire_loss = self._attach_wire(kernel)
        self._foretold_exe = os.fsencode(name or path).decode("utf-8", "backslashreplace")
        self.is_foretold, self.is_told = True, False
        return self._go.is_seen

    def _foretold_libraries(self) -> list[libraries.Library]:
        return [] if self._foretold is None else list(self._foretold.libraries)

    def becomes_foretold(self) -> None:
        """It is to be known by its next program from now on."""
        name = posixpath.basename(self._foretold_exe)
        self.process = replace(self.process, exe=self._foretold_exe, name=name)
        self.libraries, self._failures = self._foretold_libraries(), self._foretold_failures
        self._began_unprobed = self._is_late = False

    @property
    def resolver(self) -> str:
        """Whose code resolves for it."""
        kinds = {library.kind for library in self.libraries}
        return kinds.pop() if len(kinds) == 1 else "unknown"

    def coverage(self, kernel: Kernel) -> dict[str, Any]:
        """What can be seen of it, honestly."""
        missing = [library.missing for library in self.libraries if library.missing]
        is_without_libc = self._is_supporting or self.go is not None
        if not is_without_libc and not any(library.functions for library in self.libraries):
            missing.append(
                "library calls: no libc functions found in it; lookups are known from packets only"
            )
        if self._is_late:
            missing.append(LATE)
        if self._refused is not None:
            missing.append(f"{self._refused}: {REFUSED}")
        missing += self._failures + kernel.losses + ([self._wire_loss] if self._wire_loss else [])
        if self._wire_loss is None and not kernel.variant.current_in_packets:
            missing.append(UDP_SOCKETS_BEFORE)
        names = [
            f"{library.kind} {library.version}" if library.version else library.kind
            for library in self.libraries
            if library.functions or library.missing
        ]
        return {
            "libc": names[0] if names else None,
            "go": self.go.version_text if self.go else None,
            "go_resolver": None,
            "wire": self._wire_loss is None,
            "missing": [printable_text(text) for text in dict.fromkeys(missing)],
        }

    def go_surroundings(self) -> dict[str, Any]:
        """What decides which of Go's two resolvers it takes; nothing when Go did not build it."""
        if self.go is None:
            return {}
        return go_surroundings.go_surroundings(
            self.process.alive_tid, self.go, started_wall_ns=self.process.start_wall_ns
        )

    def announced(self, kernel: Kernel, *, now_ns: int, wall_ns: int) -> items.Attached:
        """That it is traced from now on, and what can be seen of it."""
        return items.Attached(
            now_ns=now_ns,
            wall_ns=wall_ns,
            pid=self.pid,
            process=self.identity(),
            around=self.around(),
            resolver="unknown" if self._is_supporting else self.resolver,
            coverage=self.coverage(kernel),
            role="supporting" if self._is_supporting else "target",
            is_foretold=self.is_foretold,
            go={} if self._is_supporting else self.go_surroundings(),
        )

    def identity(self) -> dict[str, Any]:
        """`process` of the event lines."""
        return identity_of(self.process)

    def around(self) -> dict[str, Any]:
        """`container` and `k8s` of the event lines, where known."""
        container = self.process.container
        found: dict[str, Any] = {}
        if container is not None and container.id is not None:
            found["container"] = {"id": container.id}
            if container.runtime is not None:
                found["container"]["runtime"] = container.runtime
        if container is not None and container.pod_uid is not None:
            found["k8s"] = {"pod": {"uid": container.pod_uid}}
        return found

    def close(self) -> None:
        """Let go of the pidfd."""
        with contextlib.suppress(OSError):
            os.close(self.pidfd)


def identity_of(process: processes.Process) -> dict[str, Any]:
    """`process` of the event lines."""
    found: dict[str, Any] = {"pid": process.pid}
    if process.vpid != process.pid:
        found["vpid"] = process.vpid
    path = None if process.exe is None else printable_text(process.exe)
    found["executable"] = {"name": printable_text(process.name), "path": path}
    found["start_time"] = rfc3339(process.start_wall_ns)
    return found
