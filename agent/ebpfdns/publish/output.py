"""The output of event lines: never in the way of the pipeline, never without bound, never half a line.

Owns: the writer thread, retries, rotation, and the word on what was dropped.
Must not know: what is in a line, nor what the pipeline does about loss.

Lines are written by whoever may: the caller, where a write returns at once (a pipe of our own), else the
thread, so that a hanging disk holds up nobody. The thread also waits for room, retries on a full disk, and
notices a reader that has gone away while there is nothing to write. It is a daemon: a write that never
returns does not keep the process alive.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import TYPE_CHECKING

from ebpfdns.publish.backlog import Backlog
from ebpfdns.publish.destination import Destination

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_LIMIT_BYTES = 8 * 1024 * 1024
RETRY_MS = 200
#: How long a writer of lines may be held up when the queue is half full: long enough for the thread to get
#: its turn and for a quick reader to be scheduled; and only once, until there is room again.
PATIENCE_S = 0.02

#: The reader is gone, or what we write to is: there is no point in going on.
GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENXIO})
HANG_UP = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Output:
    """Lines to a destination, in order. Call it from one thread, and never from inside a signal handler."""

    def __init__(
        self, destination: Destination, *, path: str | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> None:
        self._path = path
        self._destination = destination
        self._next: Destination | None = None  # where to go on after `_lines_before_next` more lines
        self._lines_before_next = 0
        self._backlog = Backlog(limit_bytes)
        self._failure: str | None = None
        self._patient = True
        self._closed = False
        self._stopping = False
        self._state = threading.Condition()  # guards everything above
        self._writing = threading.Lock()  # held by the one who writes; taken before _state, never after
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._end_foreign_line()
        self._thread = threading.Thread(target=self._run, name="ebpfdns-output", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, target: str, *, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> Output:
        """Open `-` (standard output) or a path to append to."""
        if target == "-":
            return cls(Destination.standard_output(), limit_bytes=limit_bytes)
        return cls(Destination.path(target), path=target, limit_bytes=limit_bytes)

    @classmethod
    def to_stderr(cls) -> Output:
        """To standard error, where standard output is somebody else's."""
        return cls(Destination.standard_error())

    @property
    def closed(self) -> bool:
        """Whether the reader has gone away: the agent's sign to end quietly."""
        return self._closed

    @property
    def failure(self) -> str | None:
        """The error that holds up writing now, such as ENOSPC; None when it is only the reader's pace."""
        return self._failure

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Take lines, each with its newline; never wait for long. What there is no room for is counted."""
        with self._state:
            self._give_way()
            if self._closed:
                return
            self._backlog.add(lines)
            direct = self._destination.never_blocks
        if direct:
            with self._writing:
                self._drain()
        if self._backlog and not self._failure:
            self._wake()

    def _give_way(self) -> None:
        """Let the thread, or the reader, catch up a little, unless that was in vain since there was room."""
        if not self._backlog.half_full:
            self._patient = True
        elif self._patient and not self._failure:
            self._patient = self._state.wait_for(
                lambda: self._closed or not self._backlog.half_full, PATIENCE_S
            )

    @property
    def refusing(self) -> bool:
        """Whether the next line would be dropped."""
        with self._state:
            return self._backlog.refusing

    def take_dropped(self) -> int:
        """Lines dropped since the last call, as soon as a line about it would be taken."""
        with self._state:
            return self._backlog.take_dropped()

    def reopen(self) -> None:
        """Go on in a new file of the same name: lines taken so far still go to the old one.

        Raises when it cannot be opened; the old one stays in use then. Standard output stays what it is.
        """
        if self._path is None or self._closed:
            return
        new = Destination.path(self._path)
        with self._state:
            if self._next is not None:
                self._next.close()
            self._next, self._lines_before_next = new, len(self._backlog)
        self._wake()

    def flush(self, deadline_s: float) -> int:
        """Wait for all lines to be written, up to the deadline; how many are not."""
        if self._closed:
            return 0
        self._wake()
        with self._state:
            self._state.wait_for(lambda: not self._backlog or self._closed, deadline_s)
            return 0 if self._closed else len(self._backlog)

    def close(self) -> None:
        """Write no more. A thread that hangs in a write is left behind, with its file descriptor."""
        if self._stopping:
            return
        self._stopping = True
        self._wake()
        self._thread.join(timeout=1.0)
        self._end()
        if self._thread.is_alive():
            return
        for destination in filter(None, (self._destination, self._next)):
            destination.close()
        os.close(self._wake_fd)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        """The thread: wait for room, lines, a retry's time, or the reader's going; then write."""
        while not (self._stopping or self._closed):
            self._wait()
            with self._writing:
                self._drain()

    def _wait(self) -> None:
        """Sleep until there may be something to do."""
        with self._state:
            destination, failing = self._destination, self._failure is not None
            events = select.POLLOUT if self._backlog else 0
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        if not failing:  # a full disk is always "ready": only time helps
            poller.register(destination.fd, events)
        ready = dict(poller.poll(RETRY_MS if failing else None))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if ready.get(destination.fd, 0) & HANG_UP and destination is self._destination:
            self._end()

    def _drain(self) -> None:
        """Write until nothing is left, there is no room, or it fails. The caller holds `_writing`."""
        while not self._closed:
            with self._state:
                self._switch_when_due()
                chunk = self._next_chunk()
            if not chunk:
                return
            try:
                written_bytes = self._destination.write(chunk)
            except BlockingIOError:
                return
            except OSError as error:
                if self._fails(error) and self._next is None:
                    return
                continue
            with self._state:
                self._failure = None
                self._lines_before_next -= self._backlog.advance(written_bytes)
                if not self._backlog.half_full:
                    self._state.notify_all()

    def _next_chunk(self) -> bytes:
        limit_lines = None if self._next is None else self._lines_before_next
        return self._backlog.chunk(self._destination.write_bytes, limit_lines)

    def _switch_when_due(self) -> None:
        """Go on in the new file once the old one has its lines, or cannot take them."""
        if self._next is None or (self._lines_before_next > 0 and self._failure is None):
            return
        self._destination.close()
        self._destination, self._next = self._next, None
        self._failure = None
        self._backlog.restart_line()
        self._end_foreign_line()

    def _end_foreign_line(self) -> None:
        if self._destination.starts_inside_a_line:
            self._backlog.add_first(b"\n")

    def _fails(self, error: OSError) -> bool:
        """Note why writing failed and take half a line back; False when the destination is gone for good."""
        if error.errno in GONE:
            self._end()
            return False
        with self._state:
            self._failure = errno.errorcode.get(error.errno or 0, "EIO")
            fragment_bytes = self._backlog.fragment_bytes
            if fragment_bytes and self._destination.take_back(fragment_bytes):
                self._backlog.restart_line()
        return True

    def _end(self) -> None:
        """The reader is gone, or we are to stop: nothing will be written any more."""
        with self._state:
            self._closed = True
            self._state.notify_all()
