"""Bytes and texts in the memory of another process.

Owns: /proc/PID/mem.
Must not know: what lies at an address, or why it is asked for.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ADDRESS = 1 << 62  # what pread can be asked for; user addresses end far below


def read_memory(pid: int, address: int, size: int) -> bytes:
    """As many of these bytes as can be read: none without CAP_SYS_PTRACE, or at a bad address."""
    if not 0 < address < MAX_ADDRESS or size <= 0:
        return b""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, size, address)
    except OSError:
        return b""
    finally:
        os.close(fd)


def read_texts(pid: int, addresses: Iterable[int], limit: int) -> list[bytes]:
    """The NUL-ended texts of less than `limit` bytes at these addresses, of those that can be read."""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    found = []
    try:
        for address in addresses:
            with contextlib.suppress(OSError):
                text, end, _ = os.pread(fd, limit, address).partition(b"\0")
                found += [text] if end else []
    finally:
        os.close(fd)
    return found


def read_text(pid: int, address: int, limit: int) -> bytes | None:
    """The NUL-ended text at an address, cut at `limit` bytes; None when there is none that can be read."""
    raw = read_memory(pid, address, limit)
    end = raw.find(b"\0")
    if end < 0:
        return raw if raw and len(raw) == limit else None
    return raw[:end]
