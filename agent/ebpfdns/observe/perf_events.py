"""perf_event_open(): uprobes and tracepoints with a BPF program each.

Owns: the attribute layout (include/uapi/linux/perf_event.h), and ids of event sources in sysfs and tracefs.
Must not know: which events the project uses.
A probe lives as long as its descriptor: no exit path can leave one.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import platform
import struct
from pathlib import Path

SYSCALL_NUMBER = {"x86_64": 298, "aarch64": 241}.get(platform.machine(), 298)
TYPE_TRACEPOINT = 2
ATTRIBUTES_BYTES = 112
FD_CLOEXEC = 8
SET_BPF, ENABLE = 0x40042408, 0x2400
UPROBE_SOURCE = Path("/sys/bus/event_source/devices/uprobe")

_libc = ctypes.CDLL(None, use_errno=True)


def attach_uprobe(program_fd: int, path: str, offset: int, *, is_return: bool, pid: int) -> int:
    """Probe a function by its file offset: in one process (all threads), with pid -1 in all that map it."""
    kind, return_bit = _uprobe_source()
    text = ctypes.create_string_buffer(os.fsencode(path))
    config = 1 << return_bit if is_return else 0
    event_fd = _open(kind, config, ctypes.addressof(text), offset, pid)
    return _start(event_fd, program_fd)


def open_uprobe(path: str, offset: int, *, pid: int) -> int:
    """The event of a function's place, for a link to give it its program."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    return _open(_uprobe_source()[0], 0, ctypes.addressof(text), offset, pid)


def attach_tracepoint(program_fd: int, tracefs: Path, name: str) -> int:
    """Run a program at a tracepoint, named "group/event", for every task."""
    event_id = int((tracefs / "events" / name / "id").read_text())
    return _start(_open(TYPE_TRACEPOINT, event_id, 0, 0, -1), program_fd)


@functools.cache
def _uprobe_source() -> tuple[int, int]:
    """Number of the uprobe event source, and which bit of its config says "at return"."""
    kind = int((UPROBE_SOURCE / "type").read_text())
    word = (UPROBE_SOURCE / "format/retprobe").read_text().strip()  # "config:0"
    return kind, int(word.removeprefix("config:"))


def _open(kind: int, config: int, config1: int, config2: int, pid: int) -> int:
    """perf_event_open(); OSError says why not."""
    attributes = struct.pack(
        "=IIQQQQQIIQQ", kind, ATTRIBUTES_BYTES, config, 1, 0, 0, 0, 1, 0, config1, config2
    )
    buffer = ctypes.create_string_buffer(attributes, ATTRIBUTES_BYTES)
    fd = int(_libc.syscall(SYSCALL_NUMBER, buffer, pid, -1 if pid >= 0 else 0, -1, FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def _start(event_fd: int, program_fd: int) -> int:
    """Give an event its program and switch it on."""
    try:
        fcntl.ioctl(event_fd, SET_BPF, program_fd)
        fcntl.ioctl(event_fd, ENABLE, 0)
    except OSError:
        os.close(event_fd)
        raise
    return event_fd
