"""Programs as files, before anybody runs them: where a command is found, and which code will run in the end.

Owns: PATH, `#!` lines, the original environment. Must not know: libc, BPF, processes.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.observe.command import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_INTERPRETERS = 4  # of interpreters of interpreters: as many as the kernel follows
LONGEST_LINE = 256
SCRIPT_MARK = b"#!"


def own_environment() -> dict[bytes, bytes]:
    """The environment as it was given to us: Python adds to it (LC_CTYPE, PEP 538)."""
    try:
        text = Path("/proc/self/environ").read_bytes()
    except OSError:
        return dict(os.environb)
    entries = (entry.partition(b"=") for entry in text.split(b"\0") if b"=" in entry)
    return {name: value for name, _, value in entries}


def found_command(name: str, environment: Mapping[bytes, bytes]) -> str:
    """The file that this command is: as it stands, or found on PATH. Raises when there is none to run."""
    if "/" in name:
        return _checked(name, name)
    path = os.fsdecode(environment.get(b"PATH", os.fsencode(os.defpath)))
    refused = None
    for folder in path.split(":"):
        candidate = os.path.join(folder, name)  # noqa: PTH118 - an empty folder is the working folder
        if os.access(candidate, os.X_OK) and os.path.isfile(candidate):  # noqa: PTH113 - likewise
            return candidate
        if os.path.isfile(candidate):  # noqa: PTH113
            refused = candidate
    raise refusal(refused or name, errno.EACCES if refused else errno.ENOENT)


def _checked(name: str, path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110 - a path as it was typed
        raise refusal(name, errno.ENOENT)
    if os.path.isdir(path) or not os.access(path, os.X_OK):  # noqa: PTH112 - likewise
        raise refusal(name, errno.EACCES)
    return path


def is_script(path: str) -> bool:
    """Whether it is a text that names its interpreter."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - of any name
            return file.read(len(SCRIPT_MARK)) == SCRIPT_MARK
    except OSError:
        return False


def running_program(path: str) -> str:
    """Whose code runs when this file is run: its own, or that of the interpreter which it names."""
    for _ in range(MAX_INTERPRETERS):
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - of any name
                line = file.read(LONGEST_LINE).split(b"\n", 1)[0]
        except OSError:
            break
        words = line.removeprefix(SCRIPT_MARK).split() if line.startswith(SCRIPT_MARK) else []
        if not words:
            break
        path = os.fsdecode(words[0])
    return os.path.realpath(path)
