"""One tracing session: the loop that moves items from the kernel through the pipeline to the output.

Owns: the clock, signals, the order of work in one turn, and the end. Must not know: what items or lines mean.

    a turn:  scan what is open → read frames → feed frames → feed scan → losses, stats → write lines

The scan reads the maps before the frames are read: whatever ended in between has its frame by then, so an
open thing is never told of after its end.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from ebpfdns import __version__, logs
from ebpfdns.correlate import items
from ebpfdns.errors import EbpfdnsError, NoSuchTargetError
from ebpfdns.model import boundary
from ebpfdns.model.boundary import Counter, FrameKind, ProcessChange
from ebpfdns.observe import go_leftovers, leftovers, processes
from ebpfdns.observe.accounts import loss_totals, own_cost
from ebpfdns.observe.child_watch import ChildWatch
from ebpfdns.observe.configurations import Configurations
from ebpfdns.observe.earlier import Earlier
from ebpfdns.observe.followed import Followed
from ebpfdns.observe.loop_watch import LoopWatch
from ebpfdns.observe.plan import MS, RESCAN_AFTER_MS, Plan
from ebpfdns.observe.scanner import Scanner
from ebpfdns.observe.signals import read_signals, signal_pipe
from ebpfdns.observe.target import Target
from ebpfdns.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ebpfdns.observe.command import Command
    from ebpfdns.observe.exec_gate import ExecGate
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.libraries import Library
    from ebpfdns.observe.plan import Options
    from ebpfdns.observe.recording import Recorder
    from ebpfdns.publish.line_output import LineOutput


LOSSES_NS = 1000 * MS
SWEEP_NS = 10_000 * MS
FULL_SCAN_NS = 10_000 * MS
FLUSH_S = 2.0
FRAMES_A_FEED = 256
RESCAN_EVERY_NS = 30_000 * MS
PROCESS_FRAME = struct.pack("=I", FrameKind.PROCESS)
#: what has started, and all the ways to end
OPEN_COUNTERS = (
    *(Counter.LOOKUPS_STARTED, Counter.CONNECTS_STARTED),
    *(Counter.LOOKUPS_OK, Counter.LOOKUPS_FAILED, Counter.LOOKUPS_ABANDONED, Counter.LOOKUPS_UNSEEN),
    *(Counter.CONNECTS_OK, Counter.CONNECTS_FAILED, Counter.CONNECTS_ABANDONED, Counter.CONNECTS_UNSEEN),
)


class Session:
    """Traces `targets` until a signal, the end of the time, or of the last target."""

    def __init__(
        self,
        kernel: Kernel,
        options: Options,
        render: Callable[[Iterable[dict[str, Any]]], list[bytes]],
        output: LineOutput,
        recorder: Recorder | None,
    ) -> None:
        self._kernel = kernel
        self._options = options
        self._render = render
        self._output = output
        self._recorder = recorder
        self._pipeline = Pipeline()
        self._targets: dict[int, Target] = {}
        variant = kernel.variant
        self._earlier = Earlier(
            kernel.maps, frozenset(variant.dns_ports), knows_host_ids=variant.pid_namespace is None
        )
        self._followed = Followed(kernel, self._feed, self._now, is_wanted=options.follow)
        self._scanner = Scanner(
            kernel.maps, self._pipeline, self._alive_tid, self._now, self._earlier, self._followed
        )
        self._loops = LoopWatch(kernel.maps, self._pipeline, self._alive_tid, options.stuck_after_ns)
        ports, stuck_after_ns = frozenset(variant.dns_ports), options.stuck_after_ns
        # Followed children are targets themselves.
        self._children = None if variant.follow_children else ChildWatch(ports, stuck_after_ns)
        self._configurations = Configurations(self._alive_tid, self._go_surroundings)
        self._poller = select.poll()
        self._dropped = 0
        self._told_losses: dict[str, int] = {}
        self._kept = 0
        self._execed: list[int] = []  # to be looked at again
        self._stop = False
        self._command: Command | None = None
        self._gate: ExecGate | None = None
        self._known: list[Library] = []  # libcs of the command's root directory

    # The whole of it.

    def run(self, targets: Sequence[Target]) -> None:
        """Attach, trace, detach: until a signal, the end of the time, the output, or the last target."""
        with signal_pipe() as wakeup_fd:
            self._start(targets)
            self._loop(wakeup_fd, lambda: bool(self._targets) and not (self._stop or self._output.closed))

    def run_command(self, command: Command, target: Target, path: str, gate: ExecGate | None) -> None:
        """The same for a command that waits to be let go: until its end, or that of the time.

        Signals are the command's, and it goes on although nobody reads the lines. `path`: its program's file.
        """
        self._command, self._gate = command, gate

        def know_program() -> None:
            self._known = target.libraries
            target.will_run(path, self._kernel, self._known)
            target.becomes_foretold()

        self._start([target], know_program)
        if gate is not None:
            self._poller.register(gate.fd, select.POLLIN)
        command.release()
        self._loop(command.signals.fd, lambda: target.pid in self._targets)

    def _loop(self, wakeup_fd: int, goes_on: Callable[[], bool]) -> None:
        self._poller.register(wakeup_fd, select.POLLIN)
        self._poller.register(self._kernel.ring.fd, select.POLLIN)
        plan = Plan.starting(time.monotonic_ns(), self._options, self._targets)
        while goes_on():
            self._wait(plan, wakeup_fd)
            self._turn(plan)
            if plan.end_ns is not None and time.monotonic_ns() >= plan.end_ns:
                break
        self._end()

    def _start(self, targets: Sequence[Target], before_adoption: Callable[[], None] | None = None) -> None:
        options = self._options
        self._kernel.maps.set_options(options.slow_after_ns, publish_all=options.publish_all)
        for target in targets:
            self._kernel.maps.add_target(target.pid, time.monotonic_ns())
        self._kernel.attach_host_wide()
        self._feed(
            items.Started(
                **self._now(),
                version=__version__,
                host=socket.gethostname(),
                stuck_after_ns=options.stuck_after_ns,
                slow_after_ns=options.slow_after_ns,
                publish_all=options.publish_all,
                redact_key=options.redact_key,
            )
        )
        below = self._descendants(targets) if self._kernel.variant.follow_children else []
        self._earlier.find([*targets, *below], time.monotonic_ns(), is_last=False)
        for target in targets:
            target.attach(self._kernel)
            if before_adoption is not None:
                before_adoption()
            self._adopt(target)
        targets = [*targets, *(target for target in below if self._follow(target))]
        self._earlier.find(targets, time.monotonic_ns(), is_last=True)
        for target in targets:
            self._followed.find(target.pid, target.process.alive_tid)
        if options.ready_file is not None:
            options.ready_file.touch()
        logs.info("ready", targets=[target.pid for target in targets], wire=self._kernel.has_wire)

    def _adopt(self, target: Target) -> None:
        self._targets[target.pid] = target
        self._followed.leave_alone(target.pid)
        self._poller.register(target.pidfd, select.POLLIN)
        self._tell_attached(target)

    def _tell_attached(self, target: Target) -> None:
        target.is_told = True
        self._feed(target.announced(self._kernel, **self._now()))
        self._feed_some(self._configurations.of([target.pid], **self._now()))

    def _feed_some(self, scan: items.Scan | None) -> None:
        if scan is not None:
            self._feed(scan)

    def _end(self) -> None:
        """The last frames, a `target` line each, the last `stats`, and everything on its way out."""
        if self._gate is not None:
            self._poller.unregister(self._gate.fd)
            self._gate.close()
        self._read_frames()
        self._end_leftovers()
        self._end_left(None)
        for pid in list(self._targets):
            self._release(pid, "exited" if self._targets[pid].has_exited() else "detached")
        self._followed.release()
        if self._output.refusing:  # what is still to be said shall find room
            self._output.flush(FLUSH_S)
        self._losses()
        self._stats()
        left = self._output.flush(FLUSH_S)
        if left and not self._output.closed:
            logs.warning("lines were not written: the reader did not take them", lines=left)

    # One turn.

    def _wait(self, plan: Plan, wakeup_fd: int) -> None:
        timeout_ms = max(0, plan.next_ns() - time.monotonic_ns()) / MS
        for fd, _ in self._poller.poll(timeout_ms):
            if self._gate is not None and fd == self._gate.fd:
                self._look_at_held(self._gate)
            elif fd == wakeup_fd and self._command is not None:
                self._command.attend()
            elif fd == wakeup_fd:
                self._take_signals(read_signals(wakeup_fd))

    def _look_at_held(self, gate: ExecGate) -> None:
        """Programs that are about to run: nobody waits for longer than it takes to probe what is new."""
        self._read_frames()  # who was born just now
        for held in gate.held():
            if held.pid not in self._targets:
                self._read_frames()
            target = self._targets.get(held.pid)
            if target is not None:
                with contextlib.suppress(NoSuchTargetError, ProcessLookupError):
                    known = target.libraries or self._known
                    if not target.will_run(held.path, self._kernel, known, held.name):
                        gate.pass_from_now_on(held)

    def _turn(self, plan: Plan) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= plan.scan_ns:
            is_open = self._is_anything_open() or now_ns >= plan.full_scan_ns
            if is_open:
                plan.full_scan_ns = now_ns + FULL_SCAN_NS
                self._end_leftovers()
                self._scan(plan)
            plan.looked(time.monotonic_ns(), self._scanner.next_due_ns if is_open else None, is_open=is_open)
        self._read_frames()
        self._follow_processes(plan)
        if now_ns >= plan.loops_ns:
            plan.loops_ns = now_ns + self._loops.cadence_ns
            stalls = self._loops.look(**self._now())
            if stalls is not None:
                self._feed(stalls)
        if self._children is not None and now_ns >= plan.children_ns:
            plan.children_ns = now_ns + self._children.cadence_ns
            self._look_at_children()
        if now_ns >= plan.sweep_ns:
            plan.sweep_ns = now_ns + SWEEP_NS
            leftovers.forget_orphan_questions(self._kernel.maps)
            self._end_gone_goroutines(now_ns)
        if now_ns >= plan.losses_ns:
            plan.losses_ns = now_ns + LOSSES_NS
            self._losses()
        if now_ns >= plan.stats_ns:
            plan.stats_ns += self._options.stats_every_ns
            self._stats()

    def _look_at_children(self) -> None:
        seen = self._children.look(self._targets, **self._now()) if self._children else None
        if seen is not None:
            self._feed(seen)

    def _is_anything_open(self) -> bool:
        totals = self._kernel.maps.counters()
        self._take_kept(totals[Counter.FRAMES_KEPT])
        counts = [totals[index] for index in OPEN_COUNTERS]
        lookups, connects, *ends = counts
        is_open = lookups > sum(ends[:4]) or connects > sum(ends[4:])
        handshakes = totals[Counter.HANDSHAKES_STARTED] - totals[Counter.HANDSHAKES_ENDED]
        is_open = is_open or handshakes > self._scanner.evicted_handshakes
        return is_open or bool(self._pipeline.told_open()) or self._kernel.maps.has_queued()

    def _scan(self, plan: Plan) -> None:
        now = self._now()
        if frames := self._earlier.look(now["now_ns"]):
            self._feed(items.Frames(**now, frames=frames))
        scans = self._scanner.scan(now["now_ns"], now["wall_ns"], self._options.stuck_after_ns)
        for number, scan in enumerate(scans):
            if number == 0:
                self._read_frames()
                self._losses()
                plan.losses_ns = now["now_ns"] + LOSSES_NS
            if isinstance(scan, items.Scan):
                go = [
                    pid
                    for pid in map(int, scan.resolv_confs)
                    if pid in self._targets and self._targets[pid].go
                ]
                self._feed_some(self._configurations.of(go, **now))
            self._feed(scan)
        self._read_frames()
        vanished = self._scanner.vanished(now["now_ns"], now["wall_ns"])
        if vanished is not None:
            self._feed(vanished)

    def _read_frames(self) -> None:
        was_busy = False
        while frames := self._kernel.read_frames():
            was_busy = True
            self._feed_frames(frames)
        if was_busy:
            self._take_kept(self._kernel.maps.counters()[Counter.FRAMES_KEPT])

    def _feed_frames(self, frames: list[bytes]) -> None:
        """In order; a new process or program is met before what it did next is told."""
        now = self._now()
        self._feed_some(self._configurations.of_ended(frames, **now))
        at = 0
        for end, raw in enumerate(frames, 1):
            if raw.startswith(PROCESS_FRAME):
                self._end_old_program(raw)
                self._feed(items.Frames(**self._now(), frames=frames[at:end]))
                self._meet_processes()
                at = end
        if at < len(frames):
            self._feed(items.Frames(**self._now(), frames=frames[at:]))

    def _end_old_program(self, raw: bytes) -> None:
        """Goroutines of the program that a process has left by exec."""
        change = boundary.PROCESS_CHANGE.unpack(raw)
        if change.change == ProcessChange.EXECED:
            self._end_goroutines(change.pid, change.at_ns)

    def _end_goroutines(self, pid: int, end_ns: int) -> None:
        if frames := go_leftovers.end_lookups_of(self._kernel.maps, pid, end_ns):
            self._feed(items.Frames(**self._now(), frames=frames))

    def _end_gone_goroutines(self, now_ns: int) -> None:
        """Of each Go program: lookups that were left without a return."""
        for pid, target in self._targets.items():
            layout = target.go.layout if target.go is not None else None
            if layout is not None and (
                frames := go_leftovers.end_lookups_of_gone(
                    self._kernel.maps, pid, target.process.alive_tid, layout.goid_offset, now_ns
                )
            ):
                self._feed(items.Frames(**self._now(), frames=frames))

    def _meet_processes(self) -> None:
        """New children and new programs."""
        for pid in self._pipeline.forked:
            self._follow_child(pid)
        for pid in self._pipeline.execed:
            if pid in self._targets:
                self._runs_another_program(self._targets[pid])
                self._execed.append(pid)
        self._pipeline.forked.clear()
        self._pipeline.execed.clear()

    def _runs_another_program(self, target: Target) -> None:
        if not target.is_foretold:
            target.runs_another_program()
            self._look_again(target, is_changed=True)
            return
        target.becomes_foretold()
        target.is_foretold = False
        if not target.is_told:
            self._tell_attached(target)

    def _take_kept(self, kept: int) -> None:
        """Lookups that ended while the ring was full leave the map now; `kept`: how many ever did so."""
        if kept == self._kept:
            return
        self._kept = kept
        ended = self._kernel.maps.take_ended_lookups()
        for at in range(0, len(ended), FRAMES_A_FEED):
            self._feed(items.Frames(**self._now(), frames=ended[at : at + FRAMES_A_FEED]))

    def _end_leftovers(self) -> None:
        """What the kernel's programs could not end themselves."""
        if frames := leftovers.end_lookups_of_closed_sockets(self._kernel.maps):
            self._feed(items.Frames(**self._now(), frames=frames))

    def _end_left(self, pid: int | None) -> None:
        """Lookups of a process, or of all, that wait for their program to ask again: it will not."""
        if frames := leftovers.end_left(self._kernel.maps, pid):
            self._feed(items.Frames(**self._now(), frames=frames))

    def _follow_processes(self, plan: Plan) -> None:
        """Libraries that new programs map by and by, and processes that are gone."""
        now_ns = time.monotonic_ns()
        for pid in self._execed:
            plan.rescans += [(now_ns + after_ms * MS, pid) for after_ms in RESCAN_AFTER_MS]
        self._execed.clear()
        due = [pid for when, pid in plan.rescans if when <= now_ns]
        plan.rescans = [entry for entry in plan.rescans if entry[0] > now_ns]
        for pid in dict.fromkeys(due):
            is_known = pid in self._targets and self._look_again(self._targets[pid])
            if is_known and not any(entry[1] == pid for entry in plan.rescans):
                plan.rescans.append((now_ns + RESCAN_EVERY_NS, pid))
        self._followed.drop_gone()
        for pid in [pid for pid, target in self._targets.items() if target.has_exited()]:
            self._read_frames()
            now = self._now()
            if frames := self._earlier.end_of(pid, now["now_ns"]):
                self._feed(items.Frames(**now, frames=frames))
            self._end_left(pid)
            self._end_goroutines(pid, now["now_ns"])
            self._close_open_things()
            self._release(pid, "exited")

    def _look_again(self, target: Target, *, is_changed: bool = False) -> bool:
        """Find libraries that were mapped since; False when the process is gone."""
        program = target.process.exe
        try:
            is_new = target.attach(self._kernel)
        except (NoSuchTargetError, ProcessLookupError):
            return False
        if is_changed or is_new or target.process.exe != program:
            self._tell_attached(target)
        return True

    def _follow_child(self, pid: int) -> None:
        """A child of a target is one: the kernel has decided that already."""
        if pid in self._targets:
            return
        try:
            target = Target(pid)
        except NoSuchTargetError:
            self._kernel.maps.remove_target(pid)
            return
        target.was_found_running()
        self._follow(target)

    def _follow(self, target: Target) -> bool:
        """Trace a process that may be gone any moment; whether it was there long enough for that."""
        try:
            target.attach(self._kernel)
        except (NoSuchTargetError, ProcessLookupError):
            self._kernel.maps.remove_target(target.pid)
            target.close()
            return False
        self._adopt(target)
        return True

    def _descendants(self, targets: Sequence[Target]) -> list[Target]:
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

    def _close_open_things(self) -> None:
        """What a process left open when it went has ended: twice not seen is certain."""
        self._end_leftovers()
        for _ in range(2):
            now = self._now()
            for scan in self._scanner.scan(now["now_ns"], now["wall_ns"], self._options.stuck_after_ns):
                self._feed(scan)
            self._read_frames()
            vanished = self._scanner.vanished(now["now_ns"], now["wall_ns"])
            if vanished is not None:
                self._feed(vanished)

    def _release(self, pid: int, status: str) -> None:
        target = self._targets.pop(pid)
        self._look_at_children()
        self._feed(items.Gone(**self._now(), pid=pid, status=status))
        self._configurations.forget(pid)
        with contextlib.suppress(OSError):
            self._kernel.maps.remove_target(pid)
        if self._targets:  # otherwise everything ends now, all at once
            self._kernel.forget_libraries(pid)
        self._poller.unregister(target.pidfd)
        target.close()

    # Numbers.

    def _losses(self) -> None:
        if self._output.refusing:  # told as soon as a line about it is taken
            return
        self._dropped += self._output.take_dropped()
        totals = loss_totals(self._kernel, self._dropped, self._recorder)
        if totals != self._told_losses:
            self._told_losses = totals
            self._feed(items.Lost(**self._now(), totals=totals))

    def _stats(self) -> None:
        maps = self._kernel.maps
        rows = [list(row) for row in maps.histograms()]
        agent = own_cost(self._kernel)
        self._feed(items.Stats(**self._now(), counters=maps.counters(), histograms=rows, agent=agent))

    # The ends of the pipeline.

    def _feed(self, item: items.Item) -> None:
        if self._recorder is not None:
            self._recorder.record(item)
        found = self._pipeline.feed(item)
        if found:
            self._output.write_lines(self._render(found))

    @staticmethod
    def _now() -> dict[str, int]:
        return {"now_ns": time.monotonic_ns(), "wall_ns": time.time_ns()}

    def _go_surroundings(self, pid: int) -> dict[str, Any]:
        target = self._targets.get(pid)
        return target.go_surroundings() if target else {}

    def _alive_tid(self, pid: int) -> int:
        target = self._targets.get(pid)
        return target.process.alive_tid if target else pid

    def _take_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                try:
                    self._output.reopen()
                except EbpfdnsError as error:
                    logs.warning("the output could not be opened again", reason=str(error))
            else:
                self._stop = True
