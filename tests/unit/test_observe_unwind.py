"""Call frame information: the same rules as another reader finds, and nothing from broken tables."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.observe import elf_symbols, mappings, unwind_rules, unwind_tables
from ebpfdns.observe.unwind_rules import UNDEFINED, UNKNOWN, Program, rules_at

SAMPLE = 211
ROWS_OF_EACH = 7


def libc_path() -> str:
    """The C library of this very process."""
    names = ("libc.so.6", "libc.so", "ld-musl")
    return next(m.path for m in mappings.read_maps(os.getpid()) if Path(m.path).name.startswith(names))


@pytest.fixture(scope="module")
def fdes() -> list[Any]:
    """Some functions of this machine's libc, as pyelftools reads them."""
    with Path(libc_path()).open("rb") as file:
        entries = ELFFile(file).get_dwarf_info().EH_CFI_entries()
        functions = [entry for entry in entries if isinstance(entry, FDE)]
        if len(functions) < SAMPLE:
            pytest.skip("this libc has no call frame information")
        chosen = random.Random(13).sample(functions, SAMPLE)  # noqa: S311 - the same sample each time
        for entry in chosen:
            entry.get_decoded()
        return chosen


def as_elftools_says(rule: Any) -> int | str | None:
    match rule.type:
        case "OFFSET":
            return int(rule.arg)
        case "UNDEFINED":
            return UNDEFINED
        case "SAME_VALUE":
            return None
        case _:
            return UNKNOWN


def test_rules_are_those_another_reader_finds(fdes: list[Any]) -> None:
    """For functions of this machine's libc, each row gives the CFA and registers that pyelftools decodes."""
    fd = os.open(libc_path(), os.O_RDONLY)
    compared = 0
    try:
        elf = elf_symbols.parse(fd)
        assert elf is not None
        header = elf.unwind_header_address
        assert header is not None
        for fde in fdes:
            is_signal_frame = b"S" in fde.cie["augmentation"]
            rows = fde.get_decoded().table
            for row in rows[:ROWS_OF_EACH]:
                program = unwind_tables.find_program(elf.read_at, header, row["pc"])
                assert program is not None
                assert program.start == fde["initial_location"]
                assert program.end == fde["initial_location"] + fde["address_range"]
                rules = rules_at(program, row["pc"])
                if is_signal_frame:
                    assert rules is None
                    continue
                assert rules is not None
                later = [other for other in rows if other["pc"] == row["pc"]][-1]
                assert rules.cfa_register == later["cfa"].reg
                assert rules.cfa_register is None or rules.cfa_offset == later["cfa"].offset
                saved = {r: as_elftools_says(rule) for r, rule in later.items() if isinstance(r, int)}
                assert rules.saved == {r: value for r, value in saved.items() if value is not None}
                compared += 1
    finally:
        os.close(fd)
    assert compared > SAMPLE


def program(initial: bytes, instructions: bytes, **changes: Any) -> Program:
    plain: dict[str, Any] = {
        "start": 0x1000,
        "end": 0x2000,
        "initial": initial,
        "instructions": instructions,
        "code_alignment": 1,
        "data_alignment": -8,
        "return_register": 16,
        "is_signal_frame": False,
    }
    return Program(**plain | changes)


CIE = bytes([0x0C, 7, 8, 0x80 | 16, 1])  # CFA rsp+8, return address at CFA-8
PUSH_RBP = bytes([0x41, 0x0E, 16, 0x80 | 6, 2])  # from start+1 on: CFA rsp+16, rbp at CFA-16
FRAME_POINTER = bytes([0x43, 0x0D, 6])  # from start+4 on: CFA by rbp
EPILOGUE = bytes([0x0A, 0x41, 0x0C, 7, 8, 0xC0 | 6, 0x41, 0x0B])  # remember; leave; ret; restore


def test_the_row_of_an_address_is_the_last_that_begins_at_or_before_it() -> None:
    """Rules change exactly where the instructions say so, and come back after an epilogue in the middle."""
    code = program(CIE, PUSH_RBP + FRAME_POINTER + EPILOGUE)
    seen = {at: rules_at(code, 0x1000 + at) for at in range(8)}
    rows = {at: (rules.cfa_register, rules.cfa_offset, rules.saved) for at, rules in seen.items() if rules}
    before, pushed, framed = (7, 8, {16: -8}), (7, 16, {16: -8, 6: -16}), (6, 16, {16: -8, 6: -16})
    assert rows == {0: before} | dict.fromkeys((1, 2, 3), pushed) | {
        4: framed,
        5: before,
        6: framed,
        7: framed,
    }


@pytest.mark.parametrize(
    ("instructions", "saved"),
    [
        (bytes([0x07, 16]), {16: UNDEFINED}),
        (bytes([0x08, 16]), {}),
        (bytes([0x09, 3, 12]), {16: -8, 3: UNKNOWN}),
        (bytes([0x10, 3, 2, 0x76, 0x78]), {16: -8, 3: UNKNOWN}),
        (bytes([0x05, 3, 4]), {16: -8, 3: -32}),
        (bytes([0x11, 3, 0x7E]), {16: -8, 3: 16}),
        (bytes([0x2D, 0x2E, 16, 0x00]), {16: -8}),
    ],
)
def test_where_registers_are_kept(instructions: bytes, saved: dict[int, int | str]) -> None:
    """Each way to say where a register is kept is understood, or known not to be."""
    rules = rules_at(program(CIE, instructions), 0x1000)
    assert rules is not None
    assert rules.saved == saved


@pytest.mark.parametrize(
    "instructions",
    [b"\x3f", b"\x0e", b"\x0e\xff\xff", b"\x0b", b"\x10\x03\x7f", b"\x02", b"\x01" + bytes(7), b"\x1d"],
)
def test_what_is_not_understood_gives_no_rules(instructions: bytes) -> None:
    """An unknown, cut off or senseless instruction makes all that follows it unknown."""
    assert rules_at(program(CIE, instructions), 0x1FFF) is None


def test_an_expression_for_the_frame_is_said_to_be_one() -> None:
    """A CFA by an expression has no register; the unwinder stops there."""
    rules = rules_at(program(CIE, bytes([0x0F, 3, 0x76, 0x78, 0x06])), 0x1000)
    assert rules is not None
    assert rules.cfa_register is None


def test_an_address_outside_and_a_signal_frame_have_no_rules() -> None:
    """Rules are of a function's own addresses only, and of functions that were called."""
    assert rules_at(program(CIE, b""), 0x0FFF) is None
    assert rules_at(program(CIE, b""), 0x2000) is None
    assert rules_at(program(CIE, b"", is_signal_frame=True), 0x1000) is None


@given(initial=st.binary(max_size=40), instructions=st.binary(max_size=80))
def test_any_instructions_end(initial: bytes, instructions: bytes) -> None:
    """Whatever the bytes: rules, or none; never a failure."""
    rules = rules_at(program(initial, instructions), 0x1800)
    assert rules is None or isinstance(rules.saved, dict)


@given(st.integers(-(1 << 40), 1 << 40))
def test_signed_numbers_in_pieces(value: int) -> None:
    """A signed LEB128 number is read as it was written."""
    raw, rest = bytearray(), value
    while True:
        piece, rest = rest & 0x7F, rest >> 7
        is_last = rest == (-1 if piece & 0x40 else 0)
        raw.append(piece if is_last else piece | 0x80)
        if is_last:
            break
    assert unwind_rules.sleb128(bytes(raw) + b"\xff", 0) == (value, len(raw))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_broken_tables_give_a_program_around_the_address_or_none(data: st.DataObject) -> None:
    """Whatever bytes are flipped: no failure, and only a program that says it covers the address."""
    table = bytearray(TABLE)
    for at in data.draw(st.lists(st.integers(0, len(table) - 1), max_size=5)):
        table[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(table)), st.integers(0, len(table))))
    address = data.draw(st.integers(0x1000, 0x4000))
    found = unwind_tables.find_program(reader(bytes(table[:cut])), HEADER_AT, address)
    assert found is None or found.start <= address < found.end


HEADER_AT = 0x8000


def reader(table: bytes) -> unwind_tables.ReadAt:
    def read(address: int, size: int) -> bytes:
        return table[address - HEADER_AT :][:size] if address >= HEADER_AT else b""

    return read


def table_of(*functions: tuple[int, int]) -> bytes:
    """A search table, a CIE and an FDE for each function, as a linker writes them."""
    records_at = HEADER_AT + 12 + 8 * len(functions)
    cie = bytes(4) + b"\x01zR\0" + bytes([1, 0x78, 16, 1, 0x1B]) + CIE
    cie += bytes(-len(cie) % 4)
    records = len(cie).to_bytes(4, "little") + cie
    entries = b""
    for start, size in functions:
        at = records_at + len(records)
        back = (at + 4 - records_at).to_bytes(4, "little")
        where = (start - (at + 8)).to_bytes(4, "little", signed=True) + size.to_bytes(4, "little")
        fde = back + where + b"\0" + PUSH_RBP + bytes(2)
        records += len(fde).to_bytes(4, "little") + fde
        entries += b"".join((part - HEADER_AT).to_bytes(4, "little", signed=True) for part in (start, at))
    header = b"\x01\x1b\x03\x3b" + (records_at - HEADER_AT - 4).to_bytes(4, "little")
    return header + len(functions).to_bytes(4, "little") + entries + records


TABLE = table_of((0x1000, 0x100), (0x1100, 0x10), (0x2000, 0x1000))


@pytest.mark.parametrize(
    ("address", "start"),
    [
        *((0xFFF, None), (0x1000, 0x1000), (0x10FF, 0x1000), (0x1100, 0x1100)),
        *((0x1110, None), (0x2FFF, 0x2000), (0x3000, None)),
    ],
)
def test_the_function_around_an_address(address: int, start: int | None) -> None:
    """The search finds the function that covers the address; in a gap there is none."""
    found = unwind_tables.find_program(reader(TABLE), HEADER_AT, address)
    assert (found and found.start) == start
    assert found is None or (found.code_alignment, found.data_alignment, found.return_register) == (1, -8, 16)
