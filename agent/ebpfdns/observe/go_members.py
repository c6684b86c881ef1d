"""Where members of a struct are by the debug information of a Go program: for a Go newer than our table.

Owns: finding one struct in DWARF without reading the rest. Must not know: which structs are wanted, or why.

Reading DWARF as it is meant takes seconds for a program of some size. Go's linker writes each struct with its
name, and each member with name and offset, one behind the other: that can be searched for. Where two places
say different things, nothing is said.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ebpfdns.observe.elf_symbols import ElfFile

SECTION = ".debug_info"
MAX_INFO_BYTES = 256 << 20
MAX_STRUCT_BYTES = 4 << 10  # of its description
_BEFORE_FIRST_BYTES = 12  # size, kind, reference to the type, and the kind of entry
_SHF_COMPRESSED, _ZLIB = 0x800, 1
_COMPRESSION = struct.Struct("<IIQQ")  # how, nothing, size, alignment
_PIECE_BYTES = 1 << 20


def offsets(elf: ElfFile, name: str, first: str, members: Collection[str]) -> dict[str, int]:
    """The offsets of these members of a struct that begins with member `first`; only what is found surely."""
    found: dict[str, set[int]] = {}
    for description in _descriptions(elf, name.encode() + b"\0", first.encode() + b"\0"):
        for member in members:
            for offset in _offsets_of(description, member.encode() + b"\0"):
                found.setdefault(member, set()).add(offset)
                break
    return {member: values.pop() for member, values in found.items() if len(values) == 1}


def _offsets_of(description: bytes, needle: bytes) -> Iterator[int]:
    """What follows the name of a member, that is not the end of a longer one."""
    at = description.find(needle)
    while at > 0:
        before = description[at - 1 : at]
        if not before.isalnum() and before != b"_":
            yield _number(description[at + len(needle) :])
        at = description.find(needle, at + 1)


def _number(raw: bytes) -> int:
    """A number in groups of seven bits."""
    value = 0
    for shift, byte in enumerate(raw[:4]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that there is more
            break
    return value


def _descriptions(elf: ElfFile, needle: bytes, first: bytes) -> Iterator[bytes]:
    """What follows the name of the struct: its size, kind and first member (not so for other types)."""
    rest = b""
    for piece in _debug_info(elf):
        text = rest + piece
        at = text.find(needle)
        while at >= 0:
            description = text[at + len(needle) : at + MAX_STRUCT_BYTES]
            if first in description[: _BEFORE_FIRST_BYTES + len(first)]:
                yield description
            at = text.find(needle, at + 1)
        rest = text[-MAX_STRUCT_BYTES:]


def _debug_info(elf: ElfFile) -> Iterator[bytes]:
    """The section in pieces, decompressed."""
    for section, section_name in zip(elf.sections, elf.section_names, strict=True):
        if section_name != SECTION:
            continue
        at, end = section.offset, section.offset + min(section.bytes, MAX_INFO_BYTES)
        unpacker = None
        if section.flags & _SHF_COMPRESSED:
            head = elf.read(at, _COMPRESSION.size)
            if len(head) < _COMPRESSION.size or _COMPRESSION.unpack(head)[0] != _ZLIB:
                return
            at, unpacker = at + _COMPRESSION.size, zlib.decompressobj()
        total = 0
        while at < end and total < MAX_INFO_BYTES:
            raw = elf.read(at, min(_PIECE_BYTES, end - at))
            if not raw:
                return
            at += len(raw)
            try:
                piece = unpacker.decompress(raw) if unpacker else raw
            except zlib.error:
                return
            total += len(piece)
            yield piece
