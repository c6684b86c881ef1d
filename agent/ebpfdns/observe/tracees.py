"""The processes that are traced now: adopted, followed through fork and exec, looked at again, let go.

Owns: the set of targets, and when each is looked at for libraries that it has mapped since.
Must not know: the order of work in a turn (`session`), or how one process is probed (`target`).
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING, Any

from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe import processes
from ebpfdns.observe.configurations import Configurations
from ebpfdns.observe.plan import MS, RESCAN_AFTER_MS
from ebpfdns.observe.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ebpfdns.correlate import items
    from ebpfdns.observe.exec_gate import ExecGate, Held
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.libraries import Library
    from ebpfdns.observe.plan import Plan

RESCAN_EVERY_NS = 30_000 * MS


class Tracees:
    """Targets by pid. `feed` takes what is to be told of them, `poller` wakes the loop when one ends."""

    def __init__(
        self,
        kernel: Kernel,
        feed: Callable[[items.Item], None],
        now: Callable[[], dict[str, int]],
        poller: select.poll,
        on_adoption: Callable[[int], None],
    ) -> None:
        self._kernel = kernel
        self._feed = feed
        self._now = now
        self._poller = poller
        self._on_adoption = on_adoption
        self.targets: dict[int, Target] = {}
        self.configurations = Configurations(self.alive_tid, self.go_surroundings)
        self._execed: list[int] = []  # to be looked at again
        self.known: list[Library] = []  # libcs of a command's root directory

    def __contains__(self, pid: int) -> bool:
        return pid in self.targets

    def __bool__(self) -> bool:
        return bool(self.targets)

    # Who it is about.

    def alive_tid(self, pid: int) -> int:
        """A thread of it that is alive, as far as is known."""
        target = self.targets.get(pid)
        return target.process.alive_tid if target else pid

    def go_surroundings(self, pid: int) -> dict[str, Any]:
        """What decides between Go's two resolvers; nothing when it is not Go."""
        target = self.targets.get(pid)
        return target.go_surroundings() if target else {}

    def go_among(self, pids: Iterator[int]) -> list[int]:
        """Those that run a Go program."""
        return [pid for pid in pids if pid in self.targets and self.targets[pid].go]

    def exited(self) -> list[int]:
        """Those that have gone."""
        return [pid for pid, target in self.targets.items() if target.has_exited()]

    # In and out.

    def adopt(self, target: Target) -> None:
        """It is attached: from now on it is one of them."""
        self.targets[target.pid] = target
        self._on_adoption(target.pid)
        self._poller.register(target.pidfd, select.POLLIN)
        self.tell_attached(target)

    def tell_attached(self, target: Target) -> None:
        """Its `target` line, and its configuration."""
        target.is_told = True
        self._feed(target.announced(self._kernel, **self._now()))
        scan = self.configurations.of([target.pid], **self._now())
        if scan is not None:
            self._feed(scan)

    def follow(self, target: Target) -> bool:
        """Trace a process that may be gone any moment; whether it was there long enough for that."""
        try:
            target.attach(self._kernel)
        except (NoSuchTargetError, ProcessLookupError):
            self._kernel.maps.remove_target(target.pid)
            target.close()
            return False
        self.adopt(target)
        return True

    def let_go(self, pid: int) -> Target:
        """It is none of them any more; `close` it when that has been told."""
        return self.targets.pop(pid)

    def close(self, target: Target) -> None:
        """Its probes go, and what is known of it."""
        pid = target.pid
        self.configurations.forget(pid)
        with contextlib.suppress(OSError):
            self._kernel.maps.remove_target(pid)
        if self.targets:  # otherwise everything ends now, all at once
            self._kernel.forget_libraries(pid)
        self._poller.unregister(target.pidfd)
        target.close()

    # Fork and exec.

    def descendants(self, targets: Sequence[Target]) -> list[Target]:
        """What the targets had started before; what they start from now on, the kernel tells."""
        found: list[Target] = []
        seen = {target.pid for target in targets}
        while fresh := {pid for target in targets for pid in processes.descendants(target.pid)} - seen:
            seen |= fresh
            for pid in sorted(fresh):
                with contextlib.suppress(NoSuchTargetError, OSError):  # gone, or there is no room
                    target = Target(pid)
                    self._kernel.maps.add_target(pid, time.monotonic_ns())
                    found.append(target)
        return found

    def meet(self, forked: list[int], execed: list[int]) -> None:
        """New children and new programs; both lists are emptied."""
        for pid in forked:
            self._follow_child(pid)
        for pid in execed:
            if pid in self.targets:
                self._runs_another_program(self.targets[pid])
                self._execed.append(pid)
        forked.clear()
        execed.clear()

    def _follow_child(self, pid: int) -> None:
        """A child of a target is one: the kernel has decided that already."""
        if pid in self.targets:
            return
        try:
            target = Target(pid)
        except NoSuchTargetError:
            self._kernel.maps.remove_target(pid)
            return
        target.was_found_running()
        self.follow(target)

    def _runs_another_program(self, target: Target) -> None:
        if not target.is_foretold:
            target.runs_another_program()
            self._look_again(target, is_changed=True)
            return
        target.becomes_foretold()
        target.is_foretold = False
        if not target.is_told:
            self.tell_attached(target)

    def prepare(self, held: Held, gate: ExecGate) -> None:
        """A program that is about to run: what is new of it is probed before it begins."""
        target = self.targets.get(held.pid)
        if target is None:
            return
        with contextlib.suppress(NoSuchTargetError, ProcessLookupError):
            known = target.libraries or self.known
            if not target.will_run(held.path, self._kernel, known, held.name):
                gate.pass_from_now_on(held)

    # Libraries that programs map by and by.

    def look_again(self, plan: Plan) -> None:
        """At those whose time has come."""
        now_ns = time.monotonic_ns()
        for pid in self._execed:
            plan.rescans += [(now_ns + after_ms * MS, pid) for after_ms in RESCAN_AFTER_MS]
        self._execed.clear()
        due = [pid for when, pid in plan.rescans if when <= now_ns]
        plan.rescans = [entry for entry in plan.rescans if entry[0] > now_ns]
        for pid in dict.fromkeys(due):
            is_known = pid in self.targets and self._look_again(self.targets[pid])
            if is_known and not any(entry[1] == pid for entry in plan.rescans):
                plan.rescans.append((now_ns + RESCAN_EVERY_NS, pid))

    def _look_again(self, target: Target, *, is_changed: bool = False) -> bool:
        """Find libraries that were mapped since; False when the process is gone."""
        program = target.process.exe
        try:
            is_new = target.attach(self._kernel)
        except (NoSuchTargetError, ProcessLookupError):
            return False
        if is_changed or is_new or target.process.exe != program:
            self.tell_attached(target)
        return True
