"""The programs that a command starts, each held by the kernel for the moment in which its probes are made.

Owns: fanotify(7): which mounts are watched, who is held, letting go. Must not know: probes.

The kernel asks us before it opens a file to run it, and waits for the answer: no signal, no ptrace, nothing
that the program could see but a few milliseconds. Only mounts of the command's own mount namespace are
watched, so nobody else is ever held; and when we are gone, whatever the reason, the kernel lets all go.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ebpfdns.observe import proc_files

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNS = 0x0002_0000
FAN_CLOEXEC, FAN_NONBLOCK, FAN_CLASS_CONTENT = 0x1, 0x2, 0x4
FAN_MARK_ADD, FAN_MARK_MOUNT, FAN_MARK_IGNORED_MASK = 0x01, 0x10, 0x20
MOST_PASSED = 4096  # each keeps its file's inode in memory
FAN_OPEN_EXEC_PERM = 0x0004_0000
FAN_ALLOW = 1
AT_FDCWD = -100
READ_BYTES = 4096
#: event_len, vers, reserved, metadata_len, mask, fd, pid
EVENT = struct.Struct("=IBBHQii")
RESPONSE = struct.Struct("=iI")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Held:
    """A process that is about to run the file `fd`, or, for such a file, its loader or interpreter."""

    pid: int
    fd: int

    @property
    def path(self) -> str:
        """For us to open it."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def name(self) -> str:
        """As the process would name it."""
        return os.readlink(self.path)  # noqa: PTH115 - the kernel's answer, not a path


class ExecGate:
    """A context manager; `next_held` gives each one, and lets it go afterwards."""

    def __init__(self, pid: int) -> None:
        """Watch every mount of its mount namespace that programs can be run from. OSError: it cannot be."""
        self.fd = _checked(
            _libc.fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_CLASS_CONTENT, os.O_RDONLY | os.O_CLOEXEC)
        )
        self._passed = 0
        try:
            self._watch(f"/proc/{pid}/root", "/")
        except OSError:
            self.close()
            raise
        for place in _places(proc_files.text(f"/proc/{pid}/mountinfo")):
            with contextlib.suppress(OSError):  # gone, or of a kind that cannot be watched
                self._watch(f"/proc/{pid}/root", place)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hold nobody any more."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def held(self) -> Iterator[Held]:
        """Each process that waits now; it goes on when the next one is asked for."""
        while True:
            try:
                raw = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            at = 0
            while at + EVENT.size <= len(raw):
                length, _, _, _, mask, fd, pid = EVENT.unpack_from(raw, at)
                at += length
                if fd < 0:
                    continue
                try:
                    if mask & FAN_OPEN_EXEC_PERM:
                        yield Held(pid, fd)
                finally:
                    self._let_go(fd)

    def pass_from_now_on(self, held: Held) -> None:
        """Hold nobody for this file any more, until it is changed."""
        if self._passed < MOST_PASSED:
            self._passed += 1
            with contextlib.suppress(OSError):
                self._mark(FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, held.path)

    def _watch(self, root: str, place: str) -> None:
        self._mark(FAN_MARK_ADD | FAN_MARK_MOUNT, root + place)

    def _mark(self, flags: int, path: str) -> None:
        mask = ctypes.c_uint64(FAN_OPEN_EXEC_PERM)
        _checked(_libc.fanotify_mark(self.fd, flags, mask, AT_FDCWD, os.fsencode(path)))

    def _let_go(self, fd: int) -> None:
        with contextlib.suppress(OSError):  # it was killed while it waited
            os.write(self.fd, RESPONSE.pack(fd, FAN_ALLOW))
        os.close(fd)


def leave_mount_namespace() -> bool:
    """Give this process mounts of its own, for an ExecGate; shared ones stay shared with everybody else."""
    return bool(_libc.unshare(CLONE_NEWNS) == 0)


def _places(mountinfo: str) -> Iterator[str]:
    """Where something is mounted that programs can be run from."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 5 and "noexec" not in fields[5].split(","):  # noqa: PLR2004 - proc(5)
            yield (
                fields[4]
                .encode()
                .decode("unicode_escape")
                .encode("latin-1")
                .decode("utf-8", "surrogateescape")
            )


def _checked(result: int) -> int:
    """The result, or the OSError that it stands for."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
