"""Who called a libc function that waits, where the libc has no call frame information (musl has none).

Owns: finding the two return addresses that prove it, among the first words of the stack.
Must not know: registers, unwind tables, lookups.

A wait goes through an exported function of the system call's own name. A return address into that function
lies near the stack pointer, and the next return address above it is its caller's: it must follow a call
that leads to the very start of the function. A call through a pointer or a table (any call from another
file) proves nothing, and there the walk ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    #: address, size → as many of these bytes as can be read
    ReadMemory = Callable[[int, int], bytes]

MAX_BYTES = 512  # from the stack pointer to the caller's return address; musl 1.2.3 has 104
WORD_BYTES = 8
_CALL_BYTES = 7  # the longest call on amd64 that has no prefix
_INSTRUCTION_BYTES = 4  # on arm64
_BL, _BL_MASK, _BLR, _BLR_MASK = 0x9400_0000, 0xFC00_0000, 0xD63F_0000, 0xFFFF_FC1F
_OFFSET_BITS = 26


class Site(NamedTuple):
    """A return address, and where on the stack it lies."""

    offset: int  # from the stack pointer
    address: int


def waiting_call(
    stack: bytes,
    machine: str,
    start_of_wait: Callable[[int], int | None],
    read_code: ReadMemory,
) -> tuple[Site, Site] | None:
    """The return address in the waiting function, and the one in its caller; None when they do not prove it.

    `start_of_wait` tells where the waiting function starts, when an address lies in it.
    """
    inner: Site | None = None
    start: int | None = None
    for at, address in _words(stack[:MAX_BYTES]):
        called = call_target(address, machine, read_code)
        if called is None:
            continue
        if inner is not None:
            return (inner, Site(at, address)) if called == start else None
        start = start_of_wait(address - 1)
        inner = None if start is None else Site(at, address)
    return None


def call_target(address: int, machine: str, read_code: ReadMemory) -> int | None:
    """Where the call in front of this address leads; 0 when a register or table says; None: it is no call."""
    if machine == "aarch64":
        return _target_on_arm64(address, read_code(address - _INSTRUCTION_BYTES, _INSTRUCTION_BYTES))
    return _target_on_amd64(address, read_code(address - _CALL_BYTES, _CALL_BYTES))


def _target_on_amd64(address: int, code: bytes) -> int | None:
    """`call rel32`, or one of the forms of `call r/m64`."""
    if len(code) < _CALL_BYTES:
        return None
    if code[2] == 0xE8:  # noqa: PLR2004
        return address + int.from_bytes(code[3:], "little", signed=True)
    # ff /2 with: a register; one and a byte; a table entry by rip; a table entry by one and 32 bits.
    forms = ((5, 0xD0, 0xF8), (4, 0x50, 0xF8), (1, 0x15, 0xFF), (1, 0x90, 0xF8), (5, 0x10, 0xF8))
    is_indirect = any(code[at] == 0xFF and code[at + 1] & mask == value for at, value, mask in forms)  # noqa: PLR2004
    return 0 if is_indirect else None


def _target_on_arm64(address: int, code: bytes) -> int | None:
    """`bl` or `blr`."""
    if len(code) < _INSTRUCTION_BYTES:
        return None
    instruction = int.from_bytes(code, "little")
    if instruction & _BL_MASK == _BL:
        offset = instruction & (1 << _OFFSET_BITS) - 1
        offset -= (offset >> (_OFFSET_BITS - 1)) << _OFFSET_BITS
        return address + _INSTRUCTION_BYTES * (offset - 1)
    return 0 if instruction & _BLR_MASK == _BLR else None


def _words(memory: bytes) -> Iterator[tuple[int, int]]:
    for at in range(0, len(memory) - WORD_BYTES + 1, WORD_BYTES):
        yield at, int.from_bytes(memory[at : at + WORD_BYTES], "little")
