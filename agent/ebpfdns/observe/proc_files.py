"""Small files and links below /proc, read whole; nothing when they are gone or refused.

Owns: that reading. Must not know: what stands in them.
"""

from __future__ import annotations

import os


def text(path: str) -> str:
    """The text of a file; empty when it is gone or refused."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - several for each of a thousand threads
            return file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""


def link(path: str) -> str | None:
    """Where a symbolic link leads; None when it is gone or refused."""
    try:
        return os.readlink(path)  # noqa: PTH115 - a single call each
    except OSError:
        return None
