"""Which function of an ELF file covers an address.

Owns: the search for that in the symbol tables. Must not know: which process has the file mapped.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import elf_symbols
from ebpfdns.observe.elf_symbols import SYMBOL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.elf_symbols import ElfFile, Section

MAX_TABLE_BYTES = 8 << 20  # 350,000 symbols
MAX_NAME_BYTES = 256
_TABLES = (elf_symbols.SHT_DYNSYM, elf_symbols.SHT_SYMTAB)


class Function(NamedTuple):
    """A function of a file."""

    name: str
    start: int  # its first address


def functions_at(elf: ElfFile, addresses: Iterable[int]) -> dict[int, Function]:
    """The function around each of these addresses of the file; none for code that no symbol says it covers.

    The nearest symbol below proves nothing: between two exported functions lie many that are not.
    """
    left = sorted(set(addresses))
    found: dict[int, Function] = {}
    for table_type in _TABLES:
        for section in elf.sections:
            if section.type == table_type and left:
                found |= _functions_in(elf, section, left)
                left = [address for address in left if address not in found]
    return found


def _functions_in(elf: ElfFile, section: Section, addresses: list[int]) -> dict[int, Function]:
    """The same by one symbol table; of several names the one that people know."""
    if section.link >= len(elf.sections) or section.bytes > MAX_TABLE_BYTES:
        return {}
    table = elf.read(section.offset, section.bytes)
    words = memoryview(table)[: len(table) // SYMBOL.size * SYMBOL.size].cast("Q")
    strings_at = elf.sections[section.link].offset
    names: dict[int, list[Function]] = {}
    lowest, highest = addresses[0], addresses[-1]
    # A symbol is three words; the second is where it starts, the third its size.
    for index, (start, size) in enumerate(zip(words[1::3], words[2::3], strict=True)):
        if start > highest or start + size <= lowest:
            continue
        first, after = (bisect.bisect_left(addresses, end) for end in (start, start + size))
        name_offset, info, _, section_index, _, _ = SYMBOL.unpack_from(table, index * SYMBOL.size)
        if first < after and info & 0xF == elf_symbols.STT_FUNC and section_index:
            name = elf_symbols.text_at(elf.read(strings_at + name_offset, MAX_NAME_BYTES), 0)
            if not name or not name.isprintable():  # it will be shown
                continue
            for address in addresses[first:after]:
                names.setdefault(address, []).append(Function(name, start))
    return {address: min(found, key=_plainness) for address, found in names.items()}


def _plainness(function: Function) -> tuple[bool, int, str]:
    return elf_symbols.plainness(function.name)
