"""Functions of Go by the symbol table of ELF: where its own table is of a form that is not known yet.

Owns: names of symbols as Go's linker writes them. Must not know: which functions are wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.observe import elf_symbols
from ebpfdns.observe.elf_symbols import SYMBOL

if TYPE_CHECKING:
    from collections.abc import Collection

    from ebpfdns.observe.elf_symbols import ElfFile

#: A function that takes its arguments on the stack; the one without this is then a wrapper around it.
ABI0 = ".abi0"


def extents(elf: ElfFile, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """Address and size of the functions with these names."""
    found: dict[str, tuple[int, int]] = {}
    wanted = frozenset([*names, *(name + ABI0 for name in names)])
    for section in elf.sections:
        if section.type != elf_symbols.SHT_SYMTAB or section.link >= len(elf.sections):
            continue
        strings = elf.sections[section.link]
        places = elf_symbols.name_offsets(elf.read(strings.offset, strings.bytes), wanted)
        table = elf.read(section.offset, section.bytes)
        whole = memoryview(table)[: len(table) // SYMBOL.size * SYMBOL.size]
        for name_offset, info, _, section_index, address, size in SYMBOL.iter_unpack(whole):
            name = places.get(name_offset)
            if name and info & 0xF == elf_symbols.STT_FUNC and section_index and address and size:
                found[name] = (address, size)
    return {name: found.get(name + ABI0, found.get(name, (0, 0))) for name in names if _has(found, name)}


def _has(found: dict[str, tuple[int, int]], name: str) -> bool:
    return name in found or name + ABI0 in found
