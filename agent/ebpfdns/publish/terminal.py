"""The terminal, while blocks on it are updated in place: lines above that stay, what is stuck now below.

Owns: the terminal's file descriptor, the thread that paints, and standard error as long as both share it.
Must not know: what an event means, what a block looks like.

Whoever has events leaves them on the board and goes on. The thread paints what is there when it gets to it,
so a terminal that takes nothing (Ctrl-S, a slow line) holds up itself alone: the newest state of each block
is painted later, and what does not fit the board is counted. A picture is one write: up to the first row of
the picture before, erase downwards, new lines, the blocks. The cursor stays where a shell wants it, visible,
at the start of a line of its own, so there is nothing to repair afterwards, whatever ends the agent.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING, TextIO, cast

from ebpfdns.publish import styled
from ebpfdns.publish.board import Board, region
from ebpfdns.publish.styled import Style

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.publish.events import Event

FALLBACK_SIZE = (24, 80)
#: Often enough for a window that is being resized; a new picture is painted when something has changed.
LOOK_MS = 250
#: Between two pictures: more than 20 a second is for nobody.
REST_S = 0.05
EVENTS_A_PICTURE = 128
GONE = frozenset({errno.EIO, errno.EPIPE, errno.EBADF, errno.ENXIO})
HANG_UP = select.POLLERR | select.POLLHUP | select.POLLNVAL
NS_PER_S = 1_000_000_000


class Terminal:
    """A renderer and a line output in one: what `accept` is given appears on the screen."""

    def __init__(self, fd: int, *, coloured: bool, live: bool = True) -> None:
        self._fd = fd
        self._coloured = coloured
        self._live = live  # whether things grow older while they are looked at: not in a replay
        self._board = Board()
        self._asides: list[bytes] = []
        self._state = threading.Condition()  # guards the board and the asides
        self._closed = False
        self._stopping = False
        self._busy = False
        self._rows_below = 0  # of the picture that stands now
        self._painted: object = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stderr = sys.stderr
        if _is_same_terminal(fd, 2):
            sys.stderr = cast("TextIO", Aside(self, sys.stderr))
        self._thread = threading.Thread(target=self._run, name="ebpfdns-screen", daemon=True)
        self._thread.start()

    def accept(self, events: Iterable[Event]) -> list[bytes]:
        """Take events, at once; nothing is left to be written elsewhere."""
        with self._state:
            self._board.take(events, time.monotonic_ns())
        self._wake()
        return []

    def take_aside(self, words: bytes) -> None:
        """Show a line that somebody else has for the same terminal (a log line)."""
        with self._state:
            self._asides.append(words)
        self._wake()

    # The line output.

    @property
    def closed(self) -> bool:
        """Whether the terminal is gone, or was closed."""
        return self._closed

    @property
    def failure(self) -> str | None:
        """A terminal is slow, or gone."""
        return None

    @property
    def refusing(self) -> bool:
        """Whether the next event would be dropped."""
        with self._state:
            return self._board.refusing

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Lines that are ready as they are."""
        for line in lines:
            self.take_aside(line)

    def take_dropped(self) -> int:
        """Events dropped since the last call."""
        with self._state:
            return self._board.take_dropped()

    def reopen(self) -> None:
        """A terminal stays what it is."""

    def flush(self, deadline_s: float) -> int:
        """Wait until everything is on the screen, up to the deadline; how much is not."""
        self._wake()
        with self._state:
            self._state.wait_for(lambda: self._closed or not (self._board or self._busy), deadline_s)
            return 0 if self._closed else len(self._board)

    def close(self) -> None:
        """The last picture: every block as it stands. A thread that hangs in a write is left behind."""
        if self._stopping:
            return
        with self._state:
            self._board.close()
        self._stopping = True
        self._wake()
        left = None
        while self._thread.is_alive() and len(self._board) != left:  # as long as it gets on
            left = len(self._board)
            self._thread.join(timeout=1.0)
        if isinstance(sys.stderr, Aside):
            sys.stderr = self._stderr
        if not self._thread.is_alive():
            os.close(self._wake_fd)
        self._closed = True

    # The thread.

    def _wake(self) -> None:
        if not self._closed:
            os.eventfd_write(self._wake_fd, 1)

    def _run(self) -> None:
        while not self._closed:
            is_last = self._stopping
            self._paint()
            if is_last and not (self._board or self._asides):
                return
            self._wait()

    def _wait(self) -> None:
        """Until there is something to paint, or a look at the window is due."""
        with self._state:
            is_more = bool(self._board) or self._stopping
            is_ageing = bool(self._board.open)
        poller = select.poll()
        poller.register(self._wake_fd, select.POLLIN)
        poller.register(self._fd, 0)
        if not is_more:
            time.sleep(REST_S)
        ready = dict(poller.poll(0 if is_more else LOOK_MS if is_ageing else None))
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        if ready.get(self._fd, 0) & HANG_UP:
            self._end()

    def _paint(self) -> None:
        """One picture, when it would be another than the one that stands."""
        rows, columns = _size(self._fd)
        style = Style(columns=columns, coloured=self._coloured)
        with self._state:
            asides, self._asides = self._asides, []
            fresh = self._board.next_lines(EVENTS_A_PICTURE)
            things, version = list(self._board.open.values()), self._board.version
            self._busy = True
        now_ns = time.monotonic_ns() if self._live else 0
        state = (rows, style, version, now_ns // NS_PER_S if things else 0)
        try:
            if asides or fresh or state != self._painted:
                lines = [
                    line for one in fresh for line in styled.appended(one.event, style, in_full=one.in_full)
                ]
                self._write(asides, lines, region(things, style, rows - 1, now_ns))
                self._painted = state
        finally:
            with self._state:
                self._busy = False
                self._state.notify_all()

    def _write(self, asides: list[bytes], lines: list[str], below: list[str]) -> None:
        if not (asides or lines or below or self._rows_below):
            return
        text = "".join(f"{line}\n" for line in [*lines, *below])
        up = f"\r\x1b[{self._rows_below}A\x1b[J" if self._rows_below else "\r"
        chunk = up.encode() + b"".join(asides) + text.encode("utf-8", "backslashreplace")
        self._rows_below = len(below)
        while chunk and not self._closed:
            try:
                chunk = chunk[os.write(self._fd, chunk) :]
            except BlockingIOError:  # somebody else has made it so
                select.select([], [self._fd], [])
            except OSError as error:
                if error.errno in GONE:
                    self._end()
                return

    def _end(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()


class Aside:
    """Standard error, while it is the terminal that blocks are painted on: its lines go above them."""

    def __init__(self, terminal: Terminal, original: TextIO) -> None:
        self._terminal, self._original = terminal, original
        self._begun = ""

    def write(self, text: str) -> int:
        """Whole lines go to the screen's owner; without one, where they always went."""
        if self._terminal.closed:
            return self._original.write(text)
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._terminal.take_aside(f"{line}\n".encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Lines are never kept."""

    def isatty(self) -> bool:
        """It is one."""
        return True

    def fileno(self) -> int:
        """The same as ever."""
        return self._original.fileno()


def _is_same_terminal(fd: int, other: int) -> bool:
    try:
        return os.isatty(other) and os.fstat(fd).st_rdev == os.fstat(other).st_rdev
    except OSError:
        return False


def _size(fd: int) -> tuple[int, int]:
    """Rows and columns."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return FALLBACK_SIZE
    return rows or FALLBACK_SIZE[0], columns or FALLBACK_SIZE[1]
