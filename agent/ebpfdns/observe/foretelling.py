"""What a program will have mapped, told from its file before anybody runs it; each file is looked at once.

Owns: that memory. Must not know: processes, probes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.observe import libraries, program_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.libraries import Library

    FileKey = tuple[int, int]

MOST_FILES = 1024


@dataclass(frozen=True, slots=True)
class Foretold:
    """A program's file, the file of its dynamic loader, and its libcs."""

    key: FileKey
    loader_key: FileKey | None
    libraries: tuple[Library, ...]
    is_new: bool
    """Whether this file was never looked at before."""


@dataclass(frozen=True, slots=True)
class _Seen:
    is_script: bool
    loader: str | None
    loader_key: FileKey | None


_seen: dict[tuple[int, int, int, int], _Seen] = {}


def foretell(path: str, root: str, known: Sequence[Library]) -> Foretold | None:
    """What the program in this file brings; None for a script, whose interpreter it is that runs, or no file.

    `root`: of the process that will run it; `known`: libcs that lie there.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 - a single call, for each program
    except OSError:
        return None
    key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    seen, is_new = _seen.get(key), False
    if seen is None:
        seen, is_new = _look(path, root), True
        while len(_seen) >= MOST_FILES:
            del _seen[next(iter(_seen))]
        _seen[key] = seen
    if seen.is_script:
        return None
    found = libraries.find_in_program(path, seen.loader, known)
    return Foretold(key[:2], seen.loader_key, tuple(found), is_new)


def _look(path: str, root: str) -> _Seen:
    if program_files.is_script(path):
        return _Seen(is_script=True, loader=None, loader_key=None)
    loader = libraries.loader_of(path, root)
    return _Seen(is_script=False, loader=loader, loader_key=None if loader is None else _file_key(loader))


def _file_key(path: str) -> FileKey | None:
    """Device and inode; None when there is no such file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as above
    except OSError:
        return None
    return found.st_dev, found.st_ino
