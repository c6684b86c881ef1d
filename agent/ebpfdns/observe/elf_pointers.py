"""Which words of an ELF file's data will point where, once it is loaded: as written, or by relocation.

Owns: finding the words that point to an address, and following one. Must not know: what the words mean.

A program that may be moved (PIE, a library) has zero, or anything, where a pointer will be; its relocations
say what is put there. Addresses are those of the file itself, before it is moved.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.observe.elf_symbols import ElfFile, Segment

WORD_BYTES = 8
CHUNK_BYTES = 1 << 20
MAX_DYNAMIC_ENTRIES = 1024
_PT_LOAD, _PT_DYNAMIC, _PF_W = 1, 2, 2
_DT_NULL, _DT_RELA, _DT_RELASZ = 0, 7, 8
_DYNAMIC = struct.Struct("<QQ")
_RELOCATION = struct.Struct("<QQQ")  # where, kind, what is put there
_CHUNK_OF_RELOCATIONS = CHUNK_BYTES // _RELOCATION.size * _RELOCATION.size
_RELATIVE = frozenset({8, 1027})  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE


class Region(NamedTuple):
    """A part of the file."""

    offset: int
    bytes: int
    address: int  # what its first byte gets loaded to


def find_all(elf: ElfFile, region: Region, needle: bytes, alignment: int = 1) -> Iterator[int]:
    """The addresses in a region where these bytes are, read in pieces: files can be large, memory is not."""
    overlap = len(needle) - 1
    for start in range(0, region.bytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES + overlap, region.bytes - start)
        piece = elf.read(region.offset + start, size)
        at = piece.find(needle)
        while at >= 0:
            if (region.address + start + at) % alignment == 0:
                yield region.address + start + at
            at = piece.find(needle, at + 1)
        if len(piece) < size:
            return


def loaded(elf: ElfFile, flags: int = 0) -> list[Region]:
    """The parts that get loaded, those with all of these flags."""
    return [
        Region(segment.offset, segment.file_bytes, segment.address)
        for segment in elf.segments
        if segment.type == _PT_LOAD and segment.flags & flags == flags
    ]


def pointers_to(elf: ElfFile, address: int) -> Iterator[int]:
    """The addresses of the words of writable data that will hold this address."""
    needle = address.to_bytes(WORD_BYTES, "little")
    for region in loaded(elf, _PF_W):
        yield from find_all(elf, region, needle, WORD_BYTES)
    for where, _, what in _relocations(elf, needle, 2 * WORD_BYTES):
        if what == address:
            yield where


def words_at(elf: ElfFile, address: int, count: int) -> tuple[int, ...] | None:
    """Words of data as they will be once loaded; None where the file has none."""
    raw = elf.read_at(address, count * WORD_BYTES)
    if len(raw) < count * WORD_BYTES:
        return None
    words = list(struct.unpack(f"<{count}Q", raw))
    for index in range(count):
        where = address + index * WORD_BYTES
        for _, _, what in _relocations(elf, where.to_bytes(WORD_BYTES, "little"), 0):
            words[index] = what
    return tuple(words)


def _relocations(elf: ElfFile, needle: bytes, place: int) -> Iterator[tuple[int, int, int]]:
    """The relative relocations with these eight bytes at this place."""
    region = _relocation_table(elf)
    if region is None:
        return
    for start in range(0, region.bytes, _CHUNK_OF_RELOCATIONS):
        piece = elf.read(region.offset + start, min(_CHUNK_OF_RELOCATIONS, region.bytes - start))
        at = piece.find(needle)
        while at >= 0:
            whole = at - place
            if whole >= 0 and whole % _RELOCATION.size == 0 and whole + _RELOCATION.size <= len(piece):
                found = _RELOCATION.unpack_from(piece, whole)
                if found[1] in _RELATIVE:
                    yield found
            at = piece.find(needle, at + 1)


def _relocation_table(elf: ElfFile) -> Region | None:
    """Where the loader finds the relocations."""
    dynamic = _dynamic(elf)
    address, size = dynamic.get(_DT_RELA), dynamic.get(_DT_RELASZ)
    offset = None if address is None else elf.file_offset(address)
    if address is None or offset is None or size is None:
        return None
    segment = _segment_of(elf, address)
    rest = 0 if segment is None else segment.address + segment.file_bytes - address
    return Region(offset, min(size, rest), address)


def _segment_of(elf: ElfFile, address: int) -> Segment | None:
    for segment in elf.segments:
        if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.file_bytes:
            return segment
    return None


def _dynamic(elf: ElfFile) -> dict[int, int]:
    """What the file tells the loader."""
    found: dict[int, int] = {}
    for segment in elf.segments:
        if segment.type == _PT_DYNAMIC:
            size = min(segment.file_bytes, MAX_DYNAMIC_ENTRIES * _DYNAMIC.size)
            raw = elf.read(segment.offset, size // _DYNAMIC.size * _DYNAMIC.size)
            for tag, value in _DYNAMIC.iter_unpack(raw[: len(raw) // _DYNAMIC.size * _DYNAMIC.size]):
                if tag == _DT_NULL:
                    break
                found.setdefault(tag, value)
    return found
