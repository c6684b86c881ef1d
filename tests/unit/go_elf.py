"""A small ELF file with what Go's linker writes: code, .gopclntab, runtime.moduledata, build information."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.observe import elf_symbols
from ebpfdns.observe.go_build_info import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ebpfdns.observe.elf_symbols import ElfFile

AMD64 = elf_symbols.MACHINES["x86_64"]
BASE = 0x400000
TEXT, TABLE, DATA = 0x1000, 0x3000, 0x5000  # file offsets; addresses are BASE higher
PAGE = 0x1000
BUILD_INFO_AT = 0x40  # in the data
MODULE_AT = 0x400


@dataclass(frozen=True)
class Made:
    """A function to put in: its bytes, and its table of (stack bytes, up to which offset)."""

    code: bytes
    stack: tuple[tuple[int, int], ...] = ()
    kind: int = 0
    flags: int = 0


def varint(value: int) -> bytes:
    raw = b""
    while value >= 0x80:
        raw += bytes([value & 0x7F | 0x80])
        value >>= 7
    return raw + bytes([value])


def stack_table(steps: tuple[tuple[int, int], ...]) -> bytes:
    raw, value, at = b"", -1, 0
    for stack_bytes, end in steps:
        delta = stack_bytes - value
        raw += varint(delta << 1 if delta >= 0 else (-delta << 1) - 1) + varint(end - at)
        value, at = stack_bytes, end
    return raw + b"\0"


def table_of(functions: Mapping[str, Made], *, magic: int, text: int) -> tuple[bytes, bytes]:
    """The function table, and the code it is about."""
    names, steps, records, code = b"", b"\0", b"", b""
    starts, name_places = [], []
    for name, made in functions.items():
        starts.append(len(code))
        code += made.code + b"\xcc" * (-len(made.code) % 32)
        name_places.append(len(names))
        names += name.encode() + b"\0"
    index_bytes = (2 * len(functions) + 1) * 4
    index = []
    for (made, start), name_at in zip(zip(functions.values(), starts, strict=True), name_places, strict=True):
        index += [start, index_bytes + len(records)]
        stack_at = len(steps) if made.stack else 0
        steps += stack_table(made.stack) if made.stack else b""
        record = struct.pack("<IiiIIIII", start, name_at, 0, 0, stack_at, 0, 0, 0)
        ends = bytes([made.kind, made.flags, 0, 0])
        records += record + (struct.pack("<I", 0) + ends if magic == 0xFFFFFFF0 else bytes(8) + ends)
    raw_index = struct.pack(f"<{len(index) + 1}I", *index, len(code))
    names_at = 72
    steps_at = names_at + len(names)
    records_at = -(-(steps_at + len(steps)) // 8) * 8
    header = struct.pack(
        "<IHBB8Q", magic, 0, 1, 8, len(functions), 0, text, names_at, steps_at, steps_at, steps_at, records_at
    )
    padding = bytes(records_at - steps_at - len(steps))
    return header + names + steps + padding + raw_index + records + bytes(16), code


def program(
    functions: Mapping[str, Made],
    *,
    magic: int = 0xFFFFFFF1,
    tells_text: bool = False,
    has_module: bool = True,
    info: bytes = b"",
) -> bytes:
    """An ELF file without section headers, as a program that removed them."""
    text = BASE + TEXT
    table, code = table_of(functions, magic=magic, text=text if tells_text else 0)
    module = struct.pack("<2Q", BASE + TABLE, BASE + TABLE + 72) + bytes(144)
    module += struct.pack("<3Q", text, text + len(code), text)
    data = bytearray(PAGE)
    data[BUILD_INFO_AT : BUILD_INFO_AT + len(info)] = info
    if has_module:
        data[MODULE_AT : MODULE_AT + len(module)] = module
    assert len(code) <= TABLE - TEXT
    assert len(table) <= DATA - TABLE
    parts = [(5, TEXT, len(code)), (4, TABLE, len(table)), (6, DATA, len(data))]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,
        AMD64,
        1,
        text,
        64,
        0,
        0,
        64,
        56,
        len(parts),
        64,
        0,
        0,
    )
    for flags, offset, size in parts:
        header += struct.pack("<IIQQQQQQ", 1, flags, offset, BASE + offset, BASE + offset, size, size, PAGE)
    file = bytearray(DATA + PAGE)
    for offset, contents in ((0, header), (TEXT, code), (TABLE, table), (DATA, bytes(data))):
        file[offset : offset + len(contents)] = contents
    return bytes(file)


def build_info(version: str, module: str = "") -> bytes:
    """As Go 1.18 and newer write it."""
    text = bytes(16) + module.encode() + bytes(16) if module else b""
    raw = version.encode()
    return MAGIC + b"\x08\x02" + bytes(16) + varint(len(raw)) + raw + varint(len(text)) + text


@contextmanager
def opened(contents: bytes) -> Iterator[ElfFile]:
    """The file, open."""
    fd = os.memfd_create("go")
    try:
        os.write(fd, contents)
        elf = elf_symbols.parse(fd, of_any_machine=True)
        assert elf is not None
        yield elf
    finally:
        os.close(fd)
