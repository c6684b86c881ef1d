"""Pointers in ELF files: as written, or as relocations say; read in pieces, nothing from broken files."""

from __future__ import annotations

import struct

from go_elf import BASE, DATA, MODULE_AT, TABLE, TEXT, Made, opened, program
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import elf_pointers, go_tables
from ebpfdns.observe.elf_pointers import Region

FUNCTIONS = {"main.main": Made(b"\x90" * 40), "net.lookup": Made(b"\x90" * 40)}
MODULE = BASE + DATA + MODULE_AT
DYNAMIC_AT, RELOCATIONS_AT = 0x800, 0x900  # in the data
RELATIVE_AMD64, COPY = 8, 5


def moved(kind: int = RELATIVE_AMD64, *, seen_bytes: int = 24 * 6) -> bytes:
    """The program as one that may be moved: its pointers are zero, and relocations say what they will be."""
    plain = program(FUNCTIONS)
    contents = bytearray(plain)
    at = DATA + MODULE_AT
    table = b""
    for offset in range(0, 184, 8):
        (value,) = struct.unpack_from("<Q", plain, at + offset)
        if value:
            table += struct.pack("<QQQ", MODULE + offset, kind, value)
            contents[at + offset : at + offset + 8] = bytes(8)
    dynamic = struct.pack("<6Q", 7, BASE + DATA + RELOCATIONS_AT, 8, seen_bytes, 0, 0)
    for place, piece in ((DYNAMIC_AT, dynamic), (RELOCATIONS_AT, table)):
        contents[DATA + place : DATA + place + len(piece)] = piece
    # A program header more: PT_DYNAMIC.
    header = struct.pack("<IIQQQQQQ", 2, 6, DATA + DYNAMIC_AT, BASE + DATA + DYNAMIC_AT, 0, 48, 48, 8)
    contents[64 + 3 * 56 : 64 + 4 * 56] = header
    contents[56:58] = (4).to_bytes(2, "little")
    return bytes(contents)


def test_relocations_say_where_pointers_will_point() -> None:
    """What a program that may be moved has at a word is what its relocation puts there."""
    for contents in (program(FUNCTIONS), moved()):
        with opened(contents) as elf:
            assert MODULE in elf_pointers.pointers_to(elf, BASE + TABLE)
            assert elf_pointers.words_at(elf, MODULE, 2) == (BASE + TABLE, BASE + TABLE + 72)
            assert go_tables.open_tables(elf).text == BASE + TEXT
            assert elf_pointers.words_at(elf, BASE + DATA + 0x1000 - 8, 2) is None


def test_other_relocations_are_no_pointers() -> None:
    """One that copies a symbol, and one behind the end of the table, say nothing."""
    for contents in (moved(COPY), moved(seen_bytes=0)):
        with opened(contents) as elf:
            assert MODULE not in elf_pointers.pointers_to(elf, BASE + TABLE)
            assert elf_pointers.words_at(elf, MODULE, 1) == (0,)


def test_a_needle_across_two_pieces_is_found_once(monkeypatch) -> None:
    """Files are read in pieces: what lies across their border is found, and nothing twice."""
    monkeypatch.setattr(elf_pointers, "CHUNK_BYTES", 16)
    contents = bytearray(program(FUNCTIONS))
    places = [DATA + 0x600 + at for at in (8, 16, 28, 47)]
    for place in places:
        contents[place : place + 4] = b"\xaa\xbb\xcc\xdd"
    with opened(bytes(contents)) as elf:
        region = Region(DATA + 0x600, 64, BASE)
        found = list(elf_pointers.find_all(elf, region, b"\xaa\xbb\xcc\xdd"))
        aligned = list(elf_pointers.find_all(elf, region, b"\xaa\xbb\xcc\xdd", 8))
    assert found == [BASE + at for at in (8, 16, 28, 47)]
    assert aligned == [BASE + 8, BASE + 16]


@given(
    st.lists(st.tuples(st.integers(0, 48 + 24 * 6), st.integers(0, 255)), max_size=6),
    st.integers(0, 0x7000),
)
def test_broken_relocations_say_less_at_most(changes: list[tuple[int, int]], size: int) -> None:
    """Whatever bytes are changed and wherever the file ends, nothing is raised."""
    contents = bytearray(moved())
    for at, value in changes:
        contents[DATA + (DYNAMIC_AT + at if at < 48 else RELOCATIONS_AT + at - 48)] = value
    contents = contents[: max(size, 0x200)]
    with opened(bytes(contents)) as elf:
        list(elf_pointers.pointers_to(elf, BASE + TABLE))
        elf_pointers.words_at(elf, MODULE, 3)
