"""Where bytes go: standard output, a file, a FIFO. One open file description and its habits.

Owns: opening it, one write, and taking back the piece of a line that a full disk let through.
Must not know: lines that wait, threads, what is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
import sys
from pathlib import Path

from ebpfdns.errors import EbpfdnsError

#: A write to a pipe is all or nothing up to this size, so a line is not cut when the agent has to leave.
PIPE_WRITE_BYTES = select.PIPE_BUF
#: Between two writes the thread may have to wait 5 ms for its turn: large writes keep up all the same.
FILE_WRITE_BYTES = 1024 * 1024
FILE_MODE = 0o640

REMEDIES = {
    errno.ENOENT: "mkdir -p {folder}",
    errno.EACCES: "choose another --output, or run as a user who may write there",
    errno.EROFS: "choose an --output on a writable file system",
    errno.EISDIR: "name a file, not a directory: --output DIR/events.jsonl",
    errno.ENXIO: "start the reader of the FIFO first",
    errno.ENOSPC: "df -h {folder}, then free some space",
}


class Destination:
    """An open place to write to. `write` says how many bytes went; what it raises is the kernel's answer."""

    def __init__(self, fd: int, *, never_blocks: bool = False, starts_inside_a_line: bool = False) -> None:
        self.fd = fd
        #: Whether `write` returns at once, so that the pipeline's own thread may call it.
        self.never_blocks = never_blocks
        #: Whether somebody left a line without its end here; the next one must not be glued to it.
        self.starts_inside_a_line = starts_inside_a_line
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self.write_bytes = FILE_WRITE_BYTES if self._is_file else PIPE_WRITE_BYTES

    @classmethod
    def standard_output(cls) -> Destination:
        """File descriptor 1."""
        if sys.__stdout__ is None:  # fd 1 was closed at start: by now it may be anything
            raise EbpfdnsError("standard output is closed", remedy="add --output FILE")
        return cls._inherited(1)

    @classmethod
    def standard_error(cls) -> Destination:
        """File descriptor 2."""
        if sys.__stderr__ is None:
            raise EbpfdnsError("standard error is closed", remedy="add --output FILE")
        return cls._inherited(2)

    @classmethod
    def _inherited(cls, fd: int) -> Destination:
        """A descriptor that we were given. A pipe is opened once more, so that O_NONBLOCK is ours alone.

        O_NONBLOCK is a flag of the open file description, which is shared with the shell and every child.
        """
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            with contextlib.suppress(OSError):  # no /proc, or a pipe of another user: blocking writes, then
                own_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                return cls(own_fd, never_blocks=True)
        return cls(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))

    @classmethod
    def path(cls, path: str) -> Destination:
        """A file to append to, created when missing; a FIFO or device is written to as it is."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, FILE_MODE)
        except OSError as error:
            remedy = REMEDIES.get(error.errno or 0, "choose another --output")
            raise EbpfdnsError(
                f"cannot write to {path}: {error.strerror}", remedy=remedy.format(folder=Path(path).parent)
            ) from error
        is_fifo = stat.S_ISFIFO(os.fstat(fd).st_mode)
        return cls(fd, never_blocks=is_fifo, starts_inside_a_line=_ends_inside_a_line(path, fd))

    def write(self, chunk: bytes) -> int:
        """Write once; how many of the bytes went."""
        return os.write(self.fd, chunk)

    def take_back(self, fragment_bytes: int) -> bool:
        """Cut a piece of a line off the end of the file again; False where that is not possible.

        Only when it is still the end: behind another writer's line there is nothing to repair.
        """
        if not self._is_file:
            return False
        try:
            end = os.lseek(self.fd, 0, os.SEEK_CUR)
            if os.fstat(self.fd).st_size != end:
                return False
            os.ftruncate(self.fd, end - fragment_bytes)
            os.lseek(self.fd, end - fragment_bytes, os.SEEK_SET)  # `> FILE` does not append by itself
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close our file descriptor (standard output itself stays open)."""
        with contextlib.suppress(OSError):  # a network file system reports late: nothing is left to do here
            os.close(self.fd)


def _ends_inside_a_line(path: str, fd: int) -> bool:
    """Whether the file has a last line without its newline, as a killed writer leaves it."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return False
    try:
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # write-only for us: a newline too many is an empty line, one too few a broken one
        return True
