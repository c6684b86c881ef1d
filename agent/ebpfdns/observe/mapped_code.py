"""What the files that a process has mapped say about an address: how its function is left, and its name.

Owns: finding the file and the place in it, and remembering what was found there.
Must not know: stacks, registers, or which functions matter.

A thousand threads in one place cost one search. Files are opened only for what is not known yet, and closed
again: a file of a container that is held open could not be unmounted.
"""

from __future__ import annotations

import bisect
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from ebpfdns.observe import code_names, elf_symbols, mappings, unwind_rules, unwind_tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.code_names import Function
    from ebpfdns.observe.elf_symbols import ElfFile
    from ebpfdns.observe.mappings import Mapping
    from ebpfdns.observe.unwind_rules import Rules

MAX_FILES = 32  # whose answers are remembered
MAX_PLACES = 256  # of one file; together some MB at most


@dataclass(slots=True)
class Known:
    """What was found out about one file, by offset in it; None: it does not say."""

    rules: dict[int, Rules | None] = field(default_factory=dict)
    functions: dict[int, Function | None] = field(default_factory=dict)  # `start` is an offset, too


@dataclass(slots=True)
class _File:
    """A mapped file: where to open it (once, when needed), and what is known of it."""

    path: str | None
    known: Known
    is_opened: bool = False
    elf: ElfFile | None = None


#: (device, inode, mtime, size) → what is known of the file.
_known: dict[tuple[int, int, int, int], Known] = {}


class MappedCode:
    """The memory of a process at one moment. A context manager, that closes what was opened."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._lines = mappings.read_maps_text(pid).splitlines()
        self._starts = [int(line[: line.index(b"-")], 16) for line in self._lines]
        self._parsed: dict[int, Mapping] = {}
        self._files: dict[tuple[int, int], _File] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            if file.elf is not None:
                os.close(file.elf.fd)
        self._files.clear()

    def mapping_of(self, address: int) -> Mapping | None:
        """What is mapped at an address."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        if index not in self._parsed:
            self._parsed[index] = mappings.parse_maps(self._lines[index], anonymous=True)[0]
        found = self._parsed[index]
        return found if address < found.end else None

    def module_of(self, address: int) -> str | None:
        """The file with the code at this address, as the process sees it; None: not code of a file."""
        found = self.mapping_of(address)
        return found.path if found and found.inode and found.is_executable else None

    def rules_at(self, address: int) -> Rules | None:
        """How to leave the function at this address; None when that is not said, or not understood."""
        place = self._place(address)
        if place is None:
            return None
        file, offset = place
        rules = file.known.rules
        if offset not in rules:
            elf = _opened(file)
            _make_room(rules, MAX_PLACES)
            rules[offset] = None if elf is None else _rules(elf, offset)
        return rules[offset]

    def functions_at(self, addresses: Iterable[int]) -> dict[int, Function | None]:
        """The function around each address; each file's symbols are gone through once for all of them."""
        places = {address: self._place(address) for address in set(addresses)}
        known = [place for place in places.values() if place is not None]
        for file, _ in known:
            _make_room(file.known.functions, MAX_PLACES)
        missing: dict[int, tuple[_File, set[int]]] = {}
        for file, offset in known:
            if offset not in file.known.functions:
                missing.setdefault(id(file), (file, set()))[1].add(offset)
        for file, offsets in missing.values():
            elf = _opened(file)
            file.known.functions.update(dict.fromkeys(offsets) if elf is None else _functions(elf, offsets))
        return {address: _moved(address, place) for address, place in places.items()}

    def _place(self, address: int) -> tuple[_File, int] | None:
        """The file with the code at this address, and where in it that is."""
        mapping = self.mapping_of(address)
        if mapping is None or not mapping.inode or not mapping.is_executable:
            return None
        key = (mapping.device, mapping.inode)
        if key not in self._files:
            self._files[key] = _found(self._pid, mapping)
        return self._files[key], address - mapping.start + mapping.offset


def _found(pid: int, mapping: Mapping) -> _File:
    """The file of a mapping; nothing is known of one that cannot be reached."""
    path = mappings.openable_path(pid, mapping)
    try:
        status = os.stat(path or "")  # noqa: PTH116 - a single call each
    except OSError:
        return _File(None, Known())
    key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    if key not in _known:
        _make_room(_known, MAX_FILES)
        _known[key] = Known()
    return _File(path, _known[key])


def _opened(file: _File) -> ElfFile | None:
    """The file, open; None when it cannot be opened, or is no ELF file of this machine."""
    if file.path is None or file.is_opened:
        return file.elf
    file.is_opened = True
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    file.elf = elf_symbols.parse(fd)
    if file.elf is None:
        os.close(fd)
    return file.elf


def _rules(elf: ElfFile, offset: int) -> Rules | None:
    """How to leave the function with this byte of the file in it."""
    address, header_address = elf.address_of(offset), elf.unwind_header_address
    if address is None or header_address is None:
        return None
    program = unwind_tables.find_program(elf.read_at, header_address, address)
    return unwind_rules.rules_at(program, address) if program else None


def _functions(elf: ElfFile, offsets: set[int]) -> dict[int, Function | None]:
    """The function around each of these bytes of the file; None where no symbol covers it."""
    addresses = {offset: elf.address_of(offset) for offset in offsets}
    found = code_names.functions_at(elf, (address for address in addresses.values() if address is not None))
    functions: dict[int, Function | None] = {}
    for offset, address in addresses.items():
        function = None if address is None else found.get(address)
        at = offset - (address or 0)
        functions[offset] = function and function._replace(start=function.start + at)
    return functions


def _moved(address: int, place: tuple[_File, int] | None) -> Function | None:
    """The function at a place in a file, with the address at which it starts in memory."""
    if place is None:
        return None
    file, offset = place
    function = file.known.functions.get(offset)
    return function and function._replace(start=address - offset + function.start)


def _make_room(remembered: dict[Any, Any], limit: int) -> None:
    """Forget all, once there is too much: it is found again when it is needed."""
    if len(remembered) >= limit:
        remembered.clear()
