"""One tracing session: the loop that moves items from the kernel through the pipeline to the output.

Owns: the clock, signals, the order of work in one turn, and the end. Must not know: what items or lines mean.

    a turn:  scan what is open → read frames → feed frames → feed scan → losses, stats → write lines

The scan reads the maps before the frames are read: whatever ended in between has its frame by then, so an
open thing is never told of after its end.
"""

from __future__ import annotations

import gc
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from ebpfdns import __version__, logs
from ebpfdns.correlate import items
from ebpfdns.errors import EbpfdnsError
from ebpfdns.model.boundary import Counter, FrameKind
from ebpfdns.observe.accounts import loss_totals, own_cost
from ebpfdns.observe.child_watch import ChildWatch
from ebpfdns.observe.earlier import Earlier
from ebpfdns.observe.endings import Endings
from ebpfdns.observe.followed import Followed
from ebpfdns.observe.loop_watch import LoopWatch
from ebpfdns.observe.plan import MS, Plan
from ebpfdns.observe.scanner import Scanner
from ebpfdns.observe.signals import read_signals, signal_pipe
from ebpfdns.observe.tracees import Tracees
from ebpfdns.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ebpfdns.observe.command import Command
    from ebpfdns.observe.exec_gate import ExecGate
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.plan import Options
    from ebpfdns.observe.recording import Recorder
    from ebpfdns.observe.target import Target
    from ebpfdns.publish.line_output import LineOutput


LOSSES_NS = 1000 * MS
SWEEP_NS = 10_000 * MS
FULL_SCAN_NS = 10_000 * MS
FLUSH_S = 2.0
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
        variant = kernel.variant
        self._earlier = Earlier(
            kernel.maps, frozenset(variant.dns_ports), knows_host_ids=variant.pid_namespace is None
        )
        self._followed = Followed(kernel, self._feed, self._now, is_wanted=options.follow)
        self._poller = select.poll()
        self._tracees = Tracees(kernel, self._feed, self._now, self._poller, self._followed.leave_alone)
        self._scanner = Scanner(
            kernel.maps, self._pipeline, self._tracees.alive_tid, self._now, self._earlier, self._followed
        )
        self._loops = LoopWatch(kernel.maps, self._pipeline, self._tracees.alive_tid, options.stuck_after_ns)
        ports, stuck_after_ns = frozenset(variant.dns_ports), options.stuck_after_ns
        # Followed children are targets themselves.
        self._children = None if variant.follow_children else ChildWatch(ports, stuck_after_ns)
        self._dropped = 0
        self._told_losses: dict[str, int] = {}
        self._endings = Endings(kernel.maps, self._feed, self._now)
        self._stop = False
        self._command: Command | None = None
        self._gate: ExecGate | None = None

    # The whole of it.

    def run(self, targets: Sequence[Target]) -> None:
        """Attach, trace, detach: until a signal, the end of the time, the output, or the last target."""
        with signal_pipe() as wakeup_fd:
            self._start(targets)
            self._loop(wakeup_fd, lambda: bool(self._tracees) and not (self._stop or self._output.closed))

    def run_command(self, command: Command, target: Target, path: str, gate: ExecGate | None) -> None:
        """The same for a command that waits to be let go: until its end, or that of the time.

        Signals are the command's, and it goes on although nobody reads the lines. `path`: its program's file.
        """
        self._command, self._gate = command, gate

        def know_program() -> None:
            self._tracees.known = target.libraries
            target.will_run(path, self._kernel, self._tracees.known)
            target.becomes_foretold()

        self._start([target], know_program)
        if gate is not None:
            self._poller.register(gate.fd, select.POLLIN)
        command.release()
        self._loop(command.signals.fd, lambda: target.pid in self._tracees)

    def _loop(self, wakeup_fd: int, goes_on: Callable[[], bool]) -> None:
        self._poller.register(wakeup_fd, select.POLLIN)
        self._poller.register(self._kernel.ring.fd, select.POLLIN)
        plan = Plan.starting(time.monotonic_ns(), self._options, self._tracees.targets)
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
        below = self._tracees.descendants(targets) if self._kernel.variant.follow_children else []
        self._earlier.find([*targets, *below], time.monotonic_ns(), is_last=False)
        for target in targets:
            target.attach(self._kernel)
            if before_adoption is not None:
                before_adoption()
            self._tracees.adopt(target)
        targets = [*targets, *(target for target in below if self._tracees.follow(target))]
        self._earlier.find(targets, time.monotonic_ns(), is_last=True)
        for target in targets:
            self._followed.find(target.pid, target.process.alive_tid)
        # What is there now stays: in a storm of lines the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        if options.ready_file is not None:
            options.ready_file.touch()
        logs.info("ready", targets=[target.pid for target in targets], wire=self._kernel.has_wire)

    def _feed_some(self, scan: items.Scan | None) -> None:
        if scan is not None:
            self._feed(scan)

    def _end(self) -> None:
        """The last frames, a `target` line each, the last `stats`, and everything on its way out."""
        if self._gate is not None:
            self._poller.unregister(self._gate.fd)
            self._gate.close()
        self._read_frames()
        self._endings.of_closed_sockets()
        self._endings.of_silent_programs(None)
        for pid in list(self._tracees.targets):
            self._release(pid, "exited" if self._tracees.targets[pid].has_exited() else "detached")
        self._followed.release()
        if self._output.refusing:  # what is still to be said shall find room
            self._output.flush(FLUSH_S)
        self._losses()
        self._stats()
        left = self._output.flush(FLUSH_S)
        if left and not self._output.closed:
            reason = self._output.failure or "the reader did not take them"
            logs.warning("lines were not written", lines=left, reason=reason)

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
            if held.pid not in self._tracees:
                self._read_frames()
            self._tracees.prepare(held, gate)

    def _turn(self, plan: Plan) -> None:
        now_ns = time.monotonic_ns()
        if now_ns >= plan.scan_ns:
            is_open = self._is_anything_open() or now_ns >= plan.full_scan_ns
            if is_open:
                plan.full_scan_ns = now_ns + FULL_SCAN_NS
                self._endings.of_closed_sockets()
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
            self._endings.sweep(self._tracees.targets, now_ns)
        if now_ns >= plan.losses_ns:
            plan.losses_ns = now_ns + LOSSES_NS
            self._losses()
        if now_ns >= plan.stats_ns:
            plan.stats_ns += self._options.stats_every_ns
            self._stats()

    def _look_at_children(self) -> None:
        seen = self._children.look(self._tracees.targets, **self._now()) if self._children else None
        if seen is not None:
            self._feed(seen)

    def _is_anything_open(self) -> bool:
        totals = self._kernel.maps.counters()
        self._endings.of_full_ring(totals[Counter.FRAMES_KEPT])
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
                go = self._tracees.go_among(map(int, scan.resolv_confs))
                self._feed_some(self._tracees.configurations.of(go, **now))
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
            self._endings.of_full_ring(self._kernel.maps.counters()[Counter.FRAMES_KEPT])

    def _feed_frames(self, frames: list[bytes]) -> None:
        """In order; a new process or program is met before what it did next is told."""
        now = self._now()
        self._feed_some(self._tracees.configurations.of_ended(frames, **now))
        at = 0
        for end, raw in enumerate(frames, 1):
            if raw.startswith(PROCESS_FRAME):
                self._endings.of_old_program(raw)
                self._feed(items.Frames(**self._now(), frames=frames[at:end]))
                self._tracees.meet(self._pipeline.forked, self._pipeline.execed)
                at = end
        if at < len(frames):
            self._feed(items.Frames(**self._now(), frames=frames[at:]))

    def _follow_processes(self, plan: Plan) -> None:
        """Libraries that new programs map by and by, and processes that are gone."""
        self._tracees.look_again(plan)
        self._followed.drop_gone()
        for pid in self._tracees.exited():
            self._read_frames()
            now = self._now()
            if frames := self._earlier.end_of(pid, now["now_ns"]):
                self._feed(items.Frames(**now, frames=frames))
            self._endings.of_silent_programs(pid)
            self._endings.of_goroutines(pid, now["now_ns"])
            self._close_open_things()
            self._release(pid, "exited")

    def _close_open_things(self) -> None:
        """What a process left open when it went has ended: twice not seen is certain."""
        self._endings.of_closed_sockets()
        for _ in range(2):
            now = self._now()
            for scan in self._scanner.scan(now["now_ns"], now["wall_ns"], self._options.stuck_after_ns):
                self._feed(scan)
            self._read_frames()
            vanished = self._scanner.vanished(now["now_ns"], now["wall_ns"])
            if vanished is not None:
                self._feed(vanished)

    def _release(self, pid: int, status: str) -> None:
        target = self._tracees.let_go(pid)
        self._look_at_children()
        self._feed(items.Gone(**self._now(), pid=pid, status=status))
        self._tracees.close(target)

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

    def _take_signals(self, numbers: list[int]) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                try:
                    self._output.reopen()
                except EbpfdnsError as error:
                    logs.warning("the output could not be opened again", reason=str(error))
            else:
                self._stop = True
