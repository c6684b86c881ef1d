"""Where in an ELF file a function starts, and the few other things an ELF file says about its libc.

Owns: reading 64-bit ELF files: segments, symbol tables, notes.
Must not know: which functions are wanted, or which process has the file mapped.

pyelftools takes 55 ms to import; a target must be ready in 20. So the five structures needed are read
here. Files belong to the target and may be broken, hostile or cut off while they are read: they are read with
pread (a mapping could end in SIGBUS), sizes are bounded, and nonsense means "no such function".
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_TABLE_BYTES = 256 << 20
MAX_OFFSET = 1 << 62
MAX_PATH_BYTES = 4096
MACHINES = {"x86_64": 62, "aarch64": 183}

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
_MAGIC_64_BIT_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_INTERP, _PT_NOTE, _PT_GNU_EH_FRAME = 1, 3, 4, 0x6474E550
_PF_X = 1
SHT_SYMTAB, SHT_DYNSYM, _SHT_VERSYM = 2, 11, 0x6FFFFFFF
STT_FUNC = 2
_VERSION_HIDDEN = 0x8000
_ABI_TAG = b"\x04\0\0\0\x10\0\0\0\x01\0\0\0GNU\0"  # note header: name 4 bytes, text 16 bytes, type 1, "GNU"


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical_address: int
    file_bytes: int
    memory_bytes: int
    alignment: int


class Section(NamedTuple):
    """A section header."""

    name_offset: int
    type: int
    flags: int
    address: int
    offset: int
    bytes: int
    link: int
    info: int
    alignment: int
    entry_bytes: int


@dataclass(frozen=True, slots=True)
class ElfFile:
    """An open ELF file."""

    fd: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    section_names: tuple[str, ...]
    machine: int  # of MACHINES

    @property
    def is_static(self) -> bool:
        """Whether it runs without a dynamic loader."""
        return all(segment.type != _PT_INTERP for segment in self.segments)

    @property
    def loader(self) -> str | None:
        """The dynamic loader that it asks for; None for a static program."""
        for segment in self.segments:
            if segment.type == _PT_INTERP and segment.file_bytes <= MAX_PATH_BYTES:
                return os.fsdecode(self.read(segment.offset, segment.file_bytes).split(b"\0", 1)[0]) or None
        return None

    @property
    def has_symbol_table(self) -> bool:
        """Whether it was left unstripped."""
        return any(section.type == SHT_SYMTAB for section in self.sections)

    @property
    def has_abi_tag(self) -> bool:
        """Whether it has the note that glibc's start-up code leaves in every program."""
        notes = (segment for segment in self.segments if segment.type == _PT_NOTE)
        return any(_ABI_TAG in self.read(note.offset, note.file_bytes) for note in notes)

    def section(self, name: str) -> bytes | None:
        """The bytes of the section with this name; None when there is none."""
        for section, section_name in zip(self.sections, self.section_names, strict=True):
            if section_name == name:
                return self.read(section.offset, section.bytes)
        return None

    def read(self, offset: int, size: int) -> bytes:
        """As much of this range as the file has; nothing of a range that makes no sense."""
        if not 0 < size <= MAX_TABLE_BYTES or offset >= MAX_OFFSET:
            return b""
        return os.pread(self.fd, size, offset)

    def read_at(self, address: int, size: int) -> bytes:
        """As much as the file has of what gets loaded to this address."""
        offset = self.file_offset(address)
        return b"" if offset is None else self.read(offset, size)

    def address_of(self, offset: int) -> int | None:
        """The address that this byte of code is loaded to; None when it is not code."""
        for segment in self.segments:
            if segment.type == _PT_LOAD and segment.flags & _PF_X:
                into = offset - segment.offset
                if 0 <= into < segment.file_bytes:
                    return segment.address + into
        return None

    @property
    def unwind_header_address(self) -> int | None:
        """Where the search table of the call frame information is; None when there is none."""
        found = (segment.address for segment in self.segments if segment.type == _PT_GNU_EH_FRAME)
        return next(found, None)

    def file_offset(self, address: int) -> int | None:
        """Where in the file the byte is that gets loaded to this address."""
        for segment in self.segments:
            start = segment.address
            if segment.type == _PT_LOAD and start <= address < start + segment.file_bytes:
                return address - start + segment.offset
        return None


def parse(fd: int, *, of_any_machine: bool = False) -> ElfFile | None:
    """Read the headers; None when this is no ELF file, or not one of this machine's own kind."""
    header = os.pread(fd, _HEADER.size, 0)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC_64_BIT_LITTLE_ENDIAN):
        return None
    fields = _HEADER.unpack(header)
    machine, segments_at, sections_at = fields[2], fields[5], fields[6]
    segment_bytes, segment_count, section_bytes, section_count, names_index = fields[9:14]
    if not of_any_machine and machine != MACHINES.get(os.uname().machine, machine):
        return None
    segments = tuple(map(Segment._make, _table(fd, _SEGMENT, segments_at, segment_bytes, segment_count)))
    sections = tuple(map(Section._make, _table(fd, _SECTION, sections_at, section_bytes, section_count)))
    names = b""
    if names_index < len(sections):
        table = sections[names_index]
        names = ElfFile(fd, segments, sections, (), machine).read(table.offset, table.bytes)
    section_names = tuple(text_at(names, section.name_offset) for section in sections)
    return ElfFile(fd, segments, sections, section_names, machine)


def function_offsets(path: str, wanted: frozenset[str]) -> dict[str, int]:
    """File offsets of these functions in the ELF file at `path`, each found one under its canonical name.

    Functions of one address are returned once: under the name without leading underscores, the shortest such.
    OSError when the file cannot be opened; {} when it is not an ELF file of this machine, or has no symbols.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        elf = parse(fd)
        return {} if elf is None else functions_in(elf, wanted)
    finally:
        os.close(fd)


def functions_in(elf: ElfFile, wanted: frozenset[str]) -> dict[str, int]:
    """The same for an open file: what it exports, else (a program that exports nothing) all it defines."""
    for table_type in (SHT_DYNSYM, SHT_SYMTAB):
        addresses: dict[str, int] = {}
        for section in elf.sections:
            if section.type == table_type:
                addresses |= _addresses(elf, section, wanted)
        if addresses:
            return _under_canonical_names(elf, addresses)
    return {}


def plainness(name: str) -> tuple[bool, int, str]:
    """Of two names of one function, the lesser is the one that people know."""
    return name.startswith("_"), len(name), name


def _addresses(elf: ElfFile, section: Section, wanted: frozenset[str]) -> dict[str, int]:
    """Addresses of the wanted functions in one symbol table; of several versions, the default one."""
    if section.link >= len(elf.sections):
        return {}
    strings = elf.sections[section.link]
    names = name_offsets(elf.read(strings.offset, strings.bytes), wanted)
    if not names:
        return {}
    versions = _versions(elf) if section.type == SHT_DYNSYM else b""
    found: dict[str, int] = {}
    for index, name, address in _functions(elf.read(section.offset, section.bytes), names):
        version = int.from_bytes(versions[2 * index : 2 * index + 2], "little")
        if name not in found or not version & _VERSION_HIDDEN:
            found[name] = address
    return found


def _functions(table: bytes, names: dict[int, str]) -> Iterator[tuple[int, str, int]]:
    """Index, name and address of the defined functions with one of these names; GNU_IFUNCs are none."""
    whole = memoryview(table)[: len(table) // SYMBOL.size * SYMBOL.size]
    for index, (name_offset, info, _, section_index, address, _) in enumerate(SYMBOL.iter_unpack(whole)):
        if name_offset in names and info & 0xF == STT_FUNC and section_index and address:
            yield index, names[name_offset], address


def name_offsets(strings: bytes, wanted: frozenset[str]) -> dict[int, str]:
    """Every offset where a wanted name can be read; linkers let a name be the tail of a longer one."""
    found: dict[int, str] = {}
    for name in wanted:
        needle = name.encode() + b"\0"
        at = strings.find(needle)
        while at >= 0:
            found[at] = name
            at = strings.find(needle, at + 1)
    return found


def _versions(elf: ElfFile) -> bytes:
    """The version numbers that go with the exported symbols, two bytes each; empty without versions."""
    tables = (section for section in elf.sections if section.type == _SHT_VERSYM)
    return b"".join(elf.read(table.offset, table.bytes) for table in tables)


def _under_canonical_names(elf: ElfFile, addresses: dict[str, int]) -> dict[str, int]:
    """Drop aliases; file offsets in place of addresses."""
    by_address: dict[int, str] = {}
    for name in sorted(addresses, key=plainness):
        by_address.setdefault(addresses[name], name)
    offsets: dict[str, int] = {}
    for address, name in by_address.items():
        plain = name.lstrip("_")
        offset = elf.file_offset(address)
        if offset is not None:
            offsets[name if plain in offsets else plain] = offset
    return offsets


def _table(fd: int, layout: struct.Struct, offset: int, size: int, count: int) -> Iterator[tuple[int, ...]]:
    """The entries of a header table, each of this size; none when it makes no sense."""
    if size != layout.size or offset >= MAX_OFFSET:
        return iter(())
    raw = os.pread(fd, size * count, offset)
    return layout.iter_unpack(raw[: len(raw) // size * size])


def text_at(strings: bytes, offset: int) -> str:
    """The NUL-ended text at an offset of a string table."""
    return strings[offset : strings.find(b"\0", offset)].decode("utf-8", "replace")
