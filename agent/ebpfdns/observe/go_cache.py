"""What was found in a Go program once, kept by its build id: the next attach reads it in a millisecond.

Owns: the key, the form of the file, and how many are kept. Must not know: how it was found, whether it holds.

A build id can be chosen freely, and stays when a file is changed. So it is a key only: who reads it compares
the code that it is about with its checksum, and a file of the same id and other code is searched anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from ebpfdns.observe import kept_files, programs

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.observe.elf_symbols import ElfFile

FORMAT = 2  # another one when how it is searched for changes
MAX_KEPT = 256
SUFFIX = ".go"
_PT_NOTE = 4
_MAX_NOTES_BYTES = 64 << 10


class Kept(NamedTuple):
    """The functions, each as a row of plain values, and what could not be found out."""

    functions: tuple[tuple[Any, ...], ...]
    missing: tuple[str, ...]


def read(elf: ElfFile, wanted: frozenset[str]) -> Kept | None:
    """What was kept of this file; None: nothing, or nothing that can be trusted."""
    raw = kept_files.read(_path(elf, wanted))
    if raw is None:
        return None
    try:
        found = orjson.loads(raw)
        rows = tuple((name, entry, tuple(ends), *rest) for name, entry, ends, *rest in found["functions"])
        if not all(map(_is_row, rows)):
            return None
        return Kept(rows, tuple(map(str, found["missing"])))
    except (ValueError, KeyError, TypeError):
        return None


def write(elf: ElfFile, wanted: frozenset[str], kept: Kept) -> None:
    """Keep this; the oldest ones make room."""
    path = _path(elf, wanted)
    rows = [tuple(row) for row in kept.functions]
    kept_files.write(path, orjson.dumps({"functions": rows, "missing": kept.missing}))
    with contextlib.suppress(OSError):
        others = sorted(path.parent.glob(f"*{SUFFIX}"), key=lambda other: other.stat().st_mtime)
        for other in others[:-MAX_KEPT]:
            other.unlink()


def _is_row(row: tuple[Any, ...]) -> bool:
    """Name, entry, returns, address, bytes, checksum."""
    match row:
        case (str(), int(), tuple(ends), int(), int(), int()):
            return all(isinstance(end, int) for end in ends)
    return False


def _path(elf: ElfFile, wanted: frozenset[str]) -> Path:
    """The file for this program: by its notes (build ids), else its time of change; by size and names."""
    status = os.fstat(elf.fd)
    notes = b"".join(
        elf.read(segment.offset, min(segment.file_bytes, _MAX_NOTES_BYTES))
        for segment in elf.segments
        if segment.type == _PT_NOTE
    )
    identity = notes or f"{status.st_dev} {status.st_ino} {status.st_mtime_ns}".encode()
    sought = " ".join([str(FORMAT), str(elf.machine), str(status.st_size), *sorted(wanted)])
    key = hashlib.sha256(sought.encode() + b"\n" + identity)
    return programs.CACHE / f"{key.hexdigest()[:32]}{SUFFIX}"
