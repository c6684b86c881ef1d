"""libuv's thread pool, in which Node and others look names up: who has it, and which requests still wait.

Owns: where `uv_getaddrinfo` is, and the layout of a request (uv_getaddrinfo_t, one for all of libuv 1).
Must not know: BPF, or what follows from a request that waits.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.observe import elf_symbols, mappings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.processes import Process

    #: address, size → as many of these bytes as can be read
    ReadMemory = Callable[[int, int], bytes]

FUNCTION = "uv_getaddrinfo"
#: Files that may have libuv in them: the library itself, or programs that export it.
_NAMES = re.compile(r"libuv\.so[.\d]*|node(js)?|electron|deno")
_MAX_SEEN = 64

#: type 8 · work 72 · the queue's next and previous 96 · hostname 128
_REQUEST = struct.Struct("=8xi60xQ16xQQ16xQ")
_LINKS = struct.Struct("=QQ")
_QUEUE_AT = 96
UV_GETADDRINFO = 8


@dataclass(frozen=True, slots=True)
class Pool:
    """The file in which a process has libuv, and where its function is."""

    path: str  # for the agent to open
    inode: int
    device: int
    offset: int


#: (device, inode, mtime, size) → the function's offset: two targets with one program read it once.
_seen: dict[tuple[int, int, int, int], int | None] = {}


def find_pools(process: Process) -> list[Pool]:
    """Each libuv that the process has mapped."""
    pid = process.alive_tid
    executable = [mapping for mapping in mappings.read_maps(pid) if mapping.is_executable]
    found: list[Pool] = []
    for mapping in {(mapping.device, mapping.inode): mapping for mapping in executable}.values():
        if not _NAMES.fullmatch(mapping.path.rpartition("/")[2]):
            continue
        path = mappings.openable_path(pid, mapping)
        pool = _pool(path) if path else None
        found += [pool] if pool else []
    return found


def _pool(path: str) -> Pool | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        if key not in _seen:
            while len(_seen) >= _MAX_SEEN:
                del _seen[next(iter(_seen))]
            elf = elf_symbols.parse(fd)
            functions = elf_symbols.functions_in(elf, frozenset({FUNCTION})) if elf else {}
            _seen[key] = functions.get(FUNCTION)
    finally:
        os.close(fd)
    offset = _seen[key]
    return None if offset is None else Pool(path, status.st_ino, status.st_dev, offset)


def waiting_hostname(request: int, read_memory: ReadMemory) -> int | None:
    """Where the name of a request lies that no thread has begun with; None of any other one.

    Begun with, a request is in no queue (its links lead to itself) or in that of finished ones (`work` is 0).
    Memory that was given back may hold anything: the links must agree with those of both neighbours.
    """
    raw = read_memory(request, _REQUEST.size)
    if len(raw) < _REQUEST.size:
        return None
    kind, work, following, previous, hostname = _REQUEST.unpack(raw)
    queue = request + _QUEUE_AT
    if kind != UV_GETADDRINFO or not work or not hostname or queue in (following, previous):
        return None
    after = read_memory(following, _LINKS.size)
    before = read_memory(previous, _LINKS.size)
    if len(after) < _LINKS.size or len(before) < _LINKS.size:
        return None
    is_linked = _LINKS.unpack(after)[1] == queue and _LINKS.unpack(before)[0] == queue
    return int(hostname) if is_linked else None
