"""Small files and links below /proc, read whole; nothing when they are gone or refused.

Owns: that reading. Must not know: what stands in them.
"""

from __future__ import annotations

import os


def raw(path: str) -> bytes:
    """The bytes of a file; none when it is gone or refused."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - several for each of a thousand threads
            return file.read()
    except OSError:
        return b""


def text(path: str) -> str:
    """The text of a file; empty when it is gone or refused."""
    return raw(path).decode("utf-8", "backslashreplace")


def syscall(pid: int, tid: int) -> str:
    """Where a thread is: the call, its arguments, the height of its stack; to be read, or to be compared."""
    return text(f"/proc/{pid}/task/{tid}/syscall")


def link(path: str) -> str | None:
    """Where a symbolic link leads; None when it is gone or refused."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a single call each
    except OSError:
        return None
