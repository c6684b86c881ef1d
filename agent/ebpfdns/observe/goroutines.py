"""The goroutines of a running Go program: who waits, where, and since when: read from its memory.

Owns: runtime.allgs, struct g, and walking the stack of a goroutine that does not run. Source: runtime2.go.
Must not know: DNS, or which functions matter.

Nothing is stopped and nothing written. What is read may change meanwhile: a goroutine is looked at again
afterwards, and one that has moved was not seen. amd64 only, so far as stacks go.
"""

from __future__ import annotations

import os
import re
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import elf_symbols, go_tables, mappings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.go_tables import Entry, GoTables

MAX_GOROUTINES = 4096
MAX_STACK_BYTES = 32 << 10
MAX_FRAMES = 64
BUDGET_NS = 200_000_000
EM_X86_64 = 62
_PF_X = 1
#: A small function that is in every program: it loads runtime.allglen, then runtime.allgptr.
LISTING_FUNCTION = "runtime.forEachGRace"
_LOADS = re.compile(rb"[\x48\x4c]\x8b[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](.{4})", re.DOTALL)
#: statuses, without the bit of a garbage collector that looks at it
NEW, IN_SYSCALL, WAITING, DEAD = 0, 3, 4, 6
_SCAN_BIT = 0x1000
_WORD = struct.Struct("=Q")
_PAIR = struct.Struct("=QQ")
#: struct g: stack, …, sched.{sp, pc}; the rest moved: from its goid's place
_STACK_AT, _SCHED_AT = 0, 56
_FIRST_SHORT_GOBUF = (1, 25)  # it lost a word
_G_BYTES = 320


class Goroutine(NamedTuple):
    """One that waits."""

    id: int
    address: int  # its struct g
    parent_id: int | None  # who made it; None: this Go does not say
    sp: int
    pc: int
    stack_end: int
    waits_since_ns: int | None  # on the monotonic clock, at the latest; only the garbage collector notes it


class Frame(NamedTuple):
    """A function that has not returned, innermost first."""

    name: str
    top: int  # its caller's stack pointer: what is passed on the stack begins here


class Seen(NamedTuple):
    """One goroutine with its frames."""

    goroutine: Goroutine
    frames: tuple[Frame, ...]


@dataclass(slots=True)
class Goroutines:
    """Those of one process; open while they are looked at."""

    version: tuple[int, int]
    goid_at: int
    parent_at: int | None
    tables: GoTables
    program: GoProgram
    bias: int  # how much higher than linked it lies
    listed_at: tuple[int, int]  # where allglen and allgptr are
    _mem: int
    _exe: int
    left_out: int = 0  # not looked at, for want of time
    _places: dict[int, tuple[Entry, int] | None] = field(default_factory=dict)

    def close(self) -> None:
        """Let go of the memory and the program."""
        os.close(self._mem)
        os.close(self._exe)

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory, as many as can be read."""
        try:
            return os.pread(self._mem, size, address) if 0 < address < 1 << 62 and size > 0 else b""
        except OSError:
            return b""

    def text(self, address: int, size: int, limit: int = 255) -> bytes | None:
        """A Go string; None when it cannot be one."""
        found = self.read(address, size) if 0 < size <= limit else b""
        return found if found and len(found) == size else None

    def word(self, address: int) -> int | None:
        """Eight bytes as a number."""
        raw = self.read(address, _WORD.size)
        return _WORD.unpack(raw)[0] if len(raw) == _WORD.size else None

    def waiting(self) -> Iterator[Goroutine]:
        """All that wait, as far as the time goes."""
        until_ns = time.monotonic_ns() + BUDGET_NS
        for number, address in enumerate(self._addresses()):
            if number >= MAX_GOROUTINES or time.monotonic_ns() > until_ns:
                self.left_out += 1
                continue
            found = self.at(address)
            if found is not None:
                yield found

    def at(self, address: int) -> Goroutine | None:
        """The one whose struct is here, when it waits."""
        raw = self.read(address, _G_BYTES)
        if len(raw) < _G_BYTES:
            return None
        _, stack_end = _PAIR.unpack_from(raw, _STACK_AT)
        status = self._status(raw)
        goid = _WORD.unpack_from(raw, self.goid_at)[0]
        since_ns = struct.unpack_from("=q", raw, self.goid_at + 16)[0]
        if status not in {IN_SYSCALL, WAITING}:
            return None
        sp, pc = _PAIR.unpack_from(raw, _SCHED_AT if status == WAITING else self._syscall_at)
        parent = None if self.parent_at is None else _WORD.unpack_from(raw, self.parent_at)[0]
        return Goroutine(goid, address, parent, sp, pc, stack_end, since_ns if since_ns > 0 else None)

    def runs(self, address: int, goid: int) -> bool:
        """Whether the one whose struct this was is there and does not wait: it runs, or could."""
        raw = self.read(address, _G_BYTES)
        if len(raw) < _G_BYTES or _WORD.unpack_from(raw, self.goid_at)[0] != goid:
            return False
        return self._status(raw) not in {NEW, DEAD, IN_SYSCALL, WAITING}

    def _status(self, raw: bytes) -> int:
        return int(struct.unpack_from("=I", raw, self.goid_at - 8)[0]) & ~_SCAN_BIT

    def stack(self, one: Goroutine) -> bytes:
        """The innermost part of its stack."""
        return self.read(one.sp, min(one.stack_end - one.sp, MAX_STACK_BYTES))

    def frames(self, one: Goroutine, stack: bytes) -> tuple[Frame, ...]:
        """The functions that it is in; fewer when its stack cannot be walked to the end."""
        return tuple(self._walk(one, stack))

    def _walk(self, one: Goroutine, stack: bytes) -> Iterator[Frame]:
        sp, pc = one.sp, one.pc
        for _ in range(MAX_FRAMES):
            place = self._place(pc - 1)
            if place is None:
                return
            entry, depth = place
            top = sp + depth + _WORD.size
            yield Frame(entry.name, top)
            at = top - _WORD.size - one.sp
            if entry.flags & go_tables.FLAG_TOP_FRAME or not 0 <= at <= len(stack) - _WORD.size:
                return
            sp, pc = top, _WORD.unpack_from(stack, at)[0]

    def _place(self, address: int) -> tuple[Entry, int] | None:
        """The function there, and how deep its frame is at that instruction."""
        if address not in self._places:
            entry = self.tables.function_at(address - self.bias)
            depth = None if entry is None else self.tables.stack_bytes(entry, address - self.bias)
            self._places[address] = None if entry is None or depth is None else (entry, depth)
        return self._places[address]

    @property
    def _syscall_at(self) -> int:
        return 104 if self.version >= _FIRST_SHORT_GOBUF else 112

    def _addresses(self) -> Iterable[int]:
        """Where their structs are; none when that makes no sense."""
        count, table = (self.word(address) for address in self.listed_at)
        if not count or not table:
            return ()
        read = min(count, 4 * MAX_GOROUTINES)
        self.left_out += count - read
        raw = self.read(table, read * _WORD.size)
        return (address for (address,) in _WORD.iter_unpack(raw[: len(raw) // _WORD.size * _WORD.size]))


def open_goroutines(tid: int, program: GoProgram) -> Goroutines | None:
    """Ready to be looked at; None when its memory may not be read, or nothing there is understood."""
    layout = program.layout
    if layout is None:
        return None
    try:
        exe = os.open(f"/proc/{tid}/exe", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        mem = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(exe)
        return None
    found = None
    try:
        found = _opened(tid, program, mem, exe)
    finally:
        if found is None:
            os.close(mem)
            os.close(exe)
    return found


def _opened(tid: int, program: GoProgram, mem: int, exe: int) -> Goroutines | None:
    elf, layout = elf_symbols.parse(exe), program.layout
    if elf is None or layout is None or elf.machine != EM_X86_64:
        return None
    bias = _bias(tid, elf, os.fstat(exe).st_ino)
    try:
        tables = go_tables.open_tables(elf)
        listed_at = _listed_at(elf, tables, program)
    except (go_tables.GoTablesError, OSError):
        return None
    if bias is None or listed_at is None:
        return None
    return Goroutines(
        program.version[:2],
        layout.goid_offset,
        layout.parent_goid_offset,
        tables,
        program,
        bias,
        (listed_at[0] + bias, listed_at[1] + bias),
        mem,
        exe,
    )


def _listed_at(elf: elf_symbols.ElfFile, tables: GoTables, program: GoProgram) -> tuple[int, int] | None:
    """Where runtime.allglen and runtime.allgptr are, as linked; None: not found."""
    known = program.functions.get(LISTING_FUNCTION)
    if known is not None:
        address, size = known.address, known.bytes
    else:
        entries = tables.functions_named({LISTING_FUNCTION}).get(LISTING_FUNCTION)
        if not entries:
            return None
        address, size = entries[0].address, entries[0].end - entries[0].address
    code = elf.read_at(address, size)
    loads = [address + match.end() + struct.unpack("=i", match[1])[0] for match in _LOADS.finditer(code)]
    return (loads[0], loads[1]) if len(loads) > 1 else None


def _bias(tid: int, elf: elf_symbols.ElfFile, inode: int) -> int | None:
    """How much higher than linked the program lies: 0 but for a position-independent one."""
    code = next((one for one in elf.segments if one.type == 1 and one.flags & _PF_X), None)
    if code is None:
        return None
    for mapping in mappings.read_maps(tid):
        is_code = mapping.is_executable and mapping.inode == inode
        if is_code and mapping.offset <= code.offset + code.file_bytes:
            return mapping.start - mapping.offset - (code.address - code.offset)
    return None
