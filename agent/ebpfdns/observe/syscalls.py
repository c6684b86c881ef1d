"""Which system call a thread sits in, and on which file descriptors it waits there.

Owns: the text of /proc/TID/syscall, the numbers of the calls that can block, and what their arguments mean.
Must not know: sockets, lookups, or how memory is read: that is handed in.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    #: address, size → as many of these bytes as can be read
    ReadMemory = Callable[[int, int], bytes]

MAX_FDS = 1024
RUNNING = "running"
RESTARTED = "restart_syscall"
MAX_RESTARTED_FDS = 16  # other calls that are restarted have other things there, which are larger numbers
_POLLFD = struct.Struct("<iHH")
_WORD_BITS = 64

#: name → number on amd64, number on arm64 (None: it has no such call)
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "close": (3, 57),
    "poll": (7, None),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "select": (23, None),
    "sched_yield": (24, 124),
    "madvise": (28, 233),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "sendfile": (40, 71),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "clone": (56, 220),
    "vfork": (58, None),
    "execve": (59, 221),
    "exit": (60, 93),
    "wait4": (61, 260),
    "semop": (65, 193),
    "msgrcv": (70, 188),
    "fcntl": (72, 25),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "futex": (202, 98),
    "io_getevents": (208, 4),
    "getdents64": (217, 61),
    "restart_syscall": (219, 128),
    "semtimedop": (220, 192),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "epoll_wait": (232, None),
    "mq_timedreceive": (243, 183),
    "waitid": (247, 95),
    "openat": (257, 56),
    "pselect6": (270, 72),
    "ppoll": (271, 73),
    "splice": (275, 76),
    "epoll_pwait": (281, 22),
    "accept4": (288, 242),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    "io_uring_enter": (426, 426),
    "clone3": (435, 435),
    "openat2": (437, 437),
    "epoll_pwait2": (441, 441),
    "futex_waitv": (449, 449),
}
_COLUMNS = {"x86_64": 0, "aarch64": 1}
EPOLL_WAITS = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2"})
_POLLS = frozenset({"poll", "ppoll"})
_SELECTS = frozenset({"select", "pselect6"})
_ON_FIRST_ARGUMENT = EPOLL_WAITS | {
    *("read", "pread64", "readv", "recvfrom", "recvmsg", "recvmmsg", "connect", "accept", "accept4"),
    *("write", "writev", "sendto", "sendmsg", "sendmmsg", "ioctl", "flock", "fcntl", "fsync", "close"),
}


@dataclass(frozen=True, slots=True)
class BlockedCall:
    """Where a thread is: the name of its call, "running" in none, None when it cannot be told."""

    name: str | None
    number: int | None
    arguments: tuple[int, ...]


UNKNOWN = BlockedCall(None, None, ())


def parse_call(text: str, machine: str = os.uname().machine) -> BlockedCall:
    """Understand the text of a /proc/TID/syscall: a number, six arguments, stack pointer, program counter."""
    words = text.split()
    if words[:1] == [RUNNING]:
        return BlockedCall(RUNNING, None, ())
    try:
        number, *registers = (int(word, 0) for word in words)
    except ValueError:
        return UNKNOWN
    if number < 0 or len(registers) < 8:  # noqa: PLR2004 - stopped outside of any call
        return UNKNOWN
    # A 32-bit program has other numbers, and the only sure sign of it here is that its stack is below 4 GiB.
    is_native = registers[6] >> 32 != 0
    return BlockedCall(_names(machine).get(number) if is_native else None, number, tuple(registers[:6]))


def parse_place(text: str) -> tuple[int, int] | None:
    """Program counter and stack pointer in the text of a /proc/TID/syscall; None for a thread in no call."""
    words = text.split()
    if len(words) != 9 or words[0].startswith("-"):  # noqa: PLR2004 - the number, six arguments, these two
        return None
    try:
        return int(words[8], 0), int(words[7], 0)
    except ValueError:
        return None


def waited_fds(call: BlockedCall, read_memory: ReadMemory) -> list[int]:
    """The file descriptors that this call waits for, as far as its arguments could be read."""
    if call.name in _POLLS:
        count = min(call.arguments[1], MAX_FDS)
        raw = read_memory(call.arguments[0], count * _POLLFD.size)
        whole = raw[: len(raw) // _POLLFD.size * _POLLFD.size]
        return [fd for fd, events, _ in _POLLFD.iter_unpack(whole) if fd >= 0]
    if call.name == RESTARTED and 0 < call.arguments[1] <= MAX_RESTARTED_FDS:
        # poll goes on so after the process was stopped or frozen, with the arguments that it had
        return waited_fds(BlockedCall("poll", None, call.arguments), read_memory)
    if call.name in _SELECTS:
        return _selected(call.arguments, read_memory)
    if call.name in _ON_FIRST_ARGUMENT:
        fd = call.arguments[0] & 0xFFFF_FFFF
        return [fd] if fd < 1 << 31 else []
    return []


def _selected(arguments: tuple[int, ...], read_memory: ReadMemory) -> list[int]:
    """Descriptors in any of the three sets of a select."""
    limit = min(arguments[0] & 0xFFFF_FFFF, MAX_FDS)
    set_bytes = (limit + _WORD_BITS - 1) // _WORD_BITS * (_WORD_BITS // 8)
    wanted = 0
    for address in arguments[1:4]:
        wanted |= int.from_bytes(read_memory(address, set_bytes), "little") if address else 0
    return [fd for fd in range(limit) if wanted >> fd & 1]


def _names(machine: str) -> dict[int, str]:
    """Number → name on this kind of machine."""
    column = _COLUMNS.get(machine)
    if column is None:
        return {}
    numbers = {name: by_machine[column] for name, by_machine in _NUMBERS.items()}
    return {number: name for name, number in numbers.items() if number is not None}
