"""The head of Go's function table: where in an ELF file it is, and where the parts of the table are.

Owns: finding it by the name of its section or by its first word. Must not know: what is in the parts.

Layout: pcHeader in runtime/symtab.go of Go 1.18 to 1.27.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import elf_pointers
from ebpfdns.observe.elf_pointers import Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.observe.elf_symbols import ElfFile

SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
MAX_FUNCTIONS = 8 << 20
#: first word → where in a function's record its kind and flags are: 1.18 and 1.19; since 1.20
MAGICS = {0xFFFFFFF0: 36, 0xFFFFFFF1: 40}
_HEADER = struct.Struct("<IHBB8Q")
_QUANTA = {1, 2, 4}
_PF_X = 1


class Header(NamedTuple):
    """Where the parts of the table are, from its start."""

    magic: int
    quantum: int  # instructions are multiples of so many bytes
    functions: int
    text: int  # 0 since Go 1.26, and where it is relocated
    names: int
    units: int
    files: int
    steps: int
    records: int


def candidates(elf: ElfFile) -> Iterator[Region]:
    """Where the table may be: by name of section, else wherever its first word is in what gets loaded."""
    for section, name in zip(elf.sections, elf.section_names, strict=True):
        if name in SECTIONS:
            yield Region(section.offset, section.bytes, section.address)
    for region in sorted(elf_pointers.loaded(elf), key=lambda region: _is_code(elf, region)):
        for magic in MAGICS:
            for quantum in sorted(_QUANTA):
                needle = struct.pack("<IHBB", magic, 0, quantum, 8)
                for at in elf_pointers.find_all(elf, region, needle, elf_pointers.WORD_BYTES):
                    into = at - region.address
                    found = Region(region.offset + into, region.bytes - into, at)
                    if read_header(elf, found) is not None:
                        yield found


def _is_code(elf: ElfFile, region: Region) -> bool:
    return region in elf_pointers.loaded(elf, _PF_X)


def read_header(elf: ElfFile, region: Region) -> Header | None:
    """The head of the table; None when it makes no sense."""
    raw = elf.read(region.offset, min(_HEADER.size, region.bytes))
    if len(raw) < _HEADER.size:
        return None
    magic, zero, quantum, pointer_bytes, functions, _, text, *places = _HEADER.unpack(raw)
    is_sorted = _HEADER.size <= places[0] and places == sorted(places)
    if magic not in MAGICS or zero or quantum not in _QUANTA or pointer_bytes != elf_pointers.WORD_BYTES:
        return None
    index_end = places[-1] + (2 * functions + 1) * 4
    if not 0 < functions <= MAX_FUNCTIONS or not is_sorted or index_end > region.bytes:
        return None
    return Header(magic, quantum, functions, text, *places)
