"""The agent's own cache files: read only when nobody else can have written them.

Owns: the check of that, and writing a file as a whole or not at all. Must not know: what is in the files.

What is in them ends up in the kernel: programs, and where in other processes' code it puts breakpoints.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def read(path: Path) -> bytes | None:
    """A file that only we can have written; None: there is none, or it cannot be trusted."""
    try:
        for place in (path.parent, path):
            status = place.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        return path.read_bytes()
    except OSError:
        return None


def write(path: Path, contents: bytes) -> None:
    """Keep this for the next start; where that is not possible (a read-only root) only time is lost."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o755, exist_ok=True)
        fd, draft = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(contents)
            Path(draft).replace(path)
        except OSError:  # the disk is full
            Path(draft).unlink()
