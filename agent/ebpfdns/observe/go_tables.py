"""The function table that every Go program carries (.gopclntab), stripped or not: names, places, frames.

Owns: reading that table, of Go 1.18 and newer. Must not know: which functions are wanted, or why.

Layout: debug/gosym/pclntab.go, runtime/symtab.go (pcHeader, pcvalue), runtime/runtime2.go (_func) of Go 1.19
to 1.27. Numbers count from the table's start, or (functions) from the start of the program's code, `text`.
To 1.25 the table says where that is; since 1.26 only runtime.moduledata does, found by its pointer to the
table. Files may be broken or hostile: they are read in pieces with pread, nonsense is a GoTablesError.
"""

from __future__ import annotations

import bisect
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import elf_pointers, go_header
from ebpfdns.observe.elf_pointers import Region

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ebpfdns.observe.elf_symbols import ElfFile
    from ebpfdns.observe.go_header import Header

MAX_NAME_BYTES = 4096
MAX_STEPS_BYTES = 256 << 10  # of one function's table of stack frames
_PIECE_BYTES = 1 << 20
_RECORD = struct.Struct("<IiiIIIII")  # entry, name, arguments, deferreturn, pcsp, pcfile, pcln, npcdata
_RECORD_BYTES = 44
#: runtime.moduledata in words: pcHeader, six slices, findfunctab, minpc, maxpc, text: so in 1.18 to 1.27
_MODULE_NAMES, _MODULE_MINPC = 1, 20
_PF_X = 1
FLAG_TOP_FRAME, FLAG_WRITES_SP, FLAG_ASSEMBLY = 1, 2, 4


class GoTablesError(Exception):
    """There is no function table of Go in the file, or none that is understood; in words."""


class Entry(NamedTuple):
    """A function as the table has it."""

    name: str
    address: int  # in the file's own terms, before it is moved
    end: int  # where the next one starts: padding is included
    arguments_bytes: int  # on the stack; < 0: not known
    stack_table: int  # for `stack_bytes`
    kind: int  # runtime's funcID, the numbers differ by version
    flags: int  # FLAG_…


@dataclass(slots=True)
class GoTables:
    """The function table of one ELF file; the file must stay open."""

    elf: ElfFile
    region: Region
    text: int
    module: int | None  # the address of its runtime.moduledata
    _header: Header
    _index: memoryview | None = field(default=None, repr=False)

    @property
    def count(self) -> int:
        """How many functions there are."""
        return self._header.functions

    @property
    def quantum(self) -> int:
        """Instructions are multiples of so many bytes: 1 on amd64, 4 on arm64."""
        return self._header.quantum

    def functions_named(self, names: Collection[str]) -> dict[str, tuple[Entry, ...]]:
        """The functions with these names, by address. One name may be two: a function and its ABI wrapper."""
        places = self._names(names)
        found: dict[str, list[Entry]] = {}
        for number in self._numbers(frozenset(places)) if places else ():
            entry = self._entry(number)
            if entry is not None and entry.name in names:
                found.setdefault(entry.name, []).append(entry)
        return {name: tuple(entries) for name, entries in found.items()}

    def function_at(self, address: int) -> Entry | None:
        """The function with this address in it; None for code that is not Go's."""
        starts = self._words()[0::2]
        number = bisect.bisect_right(starts, address - self.text) - 1
        return self._entry(number) if 0 <= number < self.count else None

    def stack_bytes(self, entry: Entry, address: int) -> int | None:
        """How far the stack pointer at this instruction is below its value at the function's entry.

        At entry the stack pointer points to the return address (amd64), or that is in the link register
        (arm64, which later saves it at the lowest place of the frame). The caller's stack pointer is this
        much higher, plus the 8 bytes of the return address on amd64. For a return address ask for
        address - 1: the call may be the last instruction. None: not known.
        """
        if not entry.stack_table or not entry.address <= address < entry.end:
            return None
        raw = self._read(self._header.steps + entry.stack_table, MAX_STEPS_BYTES)
        at, value, limit = 0, -1, entry.address
        while True:
            delta, at = _varint(raw, at)
            if delta is None or (not delta and at > 1):
                return None
            steps, at = _varint(raw, at)
            if steps is None:
                return None
            value += -(delta >> 1) - 1 if delta & 1 else delta >> 1
            limit += steps * self.quantum
            if address < limit:
                return value

    def _words(self) -> memoryview:
        """The index, read once: where each function and its record starts; last, where the code ends."""
        if self._index is None:
            size = (2 * self.count + 1) * 4
            raw = self._read(self._header.records, size)
            if len(raw) < size:
                raise GoTablesError("the function table is cut off")
            self._index = memoryview(raw).cast("I")
        return self._index

    def _entry(self, number: int) -> Entry | None:
        """A function by its number."""
        words = self._words()
        raw = self._read(self._header.records + words[2 * number + 1], _RECORD_BYTES)
        if len(raw) < _RECORD_BYTES:
            return None
        start, name_at, arguments, _, stack_table, _, _, _ = _RECORD.unpack_from(raw)
        text = self._read(self._header.names + name_at, MAX_NAME_BYTES) if name_at >= 0 else b""
        name, end, _ = text.partition(b"\0")
        if not end or start != words[2 * number]:
            return None
        kind, flags = raw[go_header.MAGICS[self._header.magic] :][:2]
        address, after = self.text + start, self.text + words[2 * number + 2]
        return Entry(name.decode("utf-8", "replace"), address, after, arguments, stack_table, kind, flags)

    def _names(self, names: Collection[str]) -> set[int]:
        """Where these names are in the table of names."""
        header = self._header
        # The byte before the first name belongs to the header, so it is looked at on its own.
        size = header.units - header.names
        region = Region(self.region.offset + header.names, size, 0)
        found: set[int] = set()
        for name in names:
            needle = name.encode() + b"\0"
            found.update(at + 1 for at in elf_pointers.find_all(self.elf, region, b"\0" + needle))
            if self._read(header.names, len(needle)) == needle:
                found.add(0)
        return found

    def _numbers(self, places: frozenset[int]) -> Iterator[int]:
        """The numbers of the functions with a name at one of these places."""
        records = self._words()[1::2]
        number = 0
        while number < self.count:
            first = records[number]
            raw = self._read(self._header.records + first, _PIECE_BYTES)
            words = memoryview(raw)[: len(raw) // 4 * 4].cast("I")
            after = bisect.bisect_right(records, first + 4 * len(words) - _RECORD_BYTES, number, self.count)
            for index in range(number, after):
                at = (records[index] - first >> 2) + 1
                if 0 < at < len(words) and words[at] in places:
                    yield index
            if after == number:
                return
            number = after

    def _read(self, offset: int, size: int) -> bytes:
        """Bytes of the table, none from beyond its end."""
        size = min(size, self.region.bytes - offset)
        return self.elf.read(self.region.offset + offset, size) if size > 0 else b""


def open_tables(elf: ElfFile) -> GoTables:
    """Find the function table of Go in an ELF file. GoTablesError when it has none that is understood."""
    reason = "it has no function table of Go (.gopclntab)"
    for region in go_header.candidates(elf):
        header = go_header.read_header(elf, region)
        if header is None:
            reason = "its function table is of a Go before 1.18, or of one that is not known yet"
            continue
        tables = GoTables(elf, region, 0, None, header)
        tables.module, tables.text = _text(tables)
        return tables
    raise GoTablesError(reason)


def _text(tables: GoTables) -> tuple[int | None, int]:
    """The address of runtime.moduledata, and where the code starts: as that says, else as the table does.

    Functions lie where the table says only if the code is in one piece: it then ends where moduledata says.
    """
    header, words = tables._header, tables._words()  # noqa: SLF001 - its own module
    first, last = words[0], words[2 * header.functions]
    for module in elf_pointers.pointers_to(tables.elf, tables.region.address):
        names = elf_pointers.words_at(tables.elf, module + _MODULE_NAMES * 8, 1)
        if names != (tables.region.address + header.names,):
            continue
        limits = elf_pointers.words_at(tables.elf, module + _MODULE_MINPC * 8, 3)
        if limits is not None:
            lowest, highest, text = limits
            if lowest == text + first and highest == text + last and _holds(tables.elf, lowest, highest):
                return module, text
            raise GoTablesError("its code lies in more than one piece, or its moduledata is of an unknown Go")
    if header.text and _holds(tables.elf, header.text + first, header.text + last):
        return None, header.text
    raise GoTablesError("where its code starts is not said (no runtime.moduledata was found)")


def _holds(elf: ElfFile, start: int, end: int) -> bool:
    """Whether these addresses are of one piece of code."""
    regions = elf_pointers.loaded(elf, _PF_X)
    return any(region.address <= start < end <= region.address + region.bytes for region in regions)


def _varint(raw: bytes, at: int) -> tuple[int | None, int]:
    """A number in groups of seven bits, and where the next one is; None when it is cut off."""
    value = shift = 0
    while at < len(raw) and shift <= 28:  # noqa: PLR2004 - 32 bits at most
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that there is more
            return value, at
    return None, at
