"""Where a function that Go compiled returns: the address of every RET instruction in it.

Owns: walking through the machine code of one function. Must not know: files, names, probes.

A return probe would rewrite the return address, which Go's runtime reads when it moves or walks a stack: the
program would crash. So each RET gets a probe of its own, and must be found surely: a probe in the middle of
an instruction would break the program, too. Code that is not understood to its end is refused.

A function that leaves by a jump into another one (a tail call) would end unseen. Go's compiler emits those in
wrappers of methods only (OTAILCALL), never in functions with a body of their own; assembly may have them. A
direct jump out of the function is refused for that. Jumps through a register are those of a switch.
"""

from __future__ import annotations

import struct

from ebpfdns.observe import elf_symbols

_AMD64, _ARM64 = elf_symbols.MACHINES["x86_64"], elf_symbols.MACHINES["aarch64"]
#: What linkers put between functions.
_PADDING = b"\xcc\x00"
_ARM64_BYTES = 4
_RET_MASK, _RET = 0xFFFFFC1F, 0xD65F0000
_B_MASK, _B = 0xFC000000, 0x14000000
_LITERAL_MASK, _LITERAL = 0x3B000000, 0x18000000
_LITERAL_BYTES = ((4, 8, 4, 0), (4, 8, 16, 0))  # to a general register, to one for vectors; by two more bits


class CodeNotUnderstoodError(Exception):
    """The function's code cannot be walked through surely; in words."""


def returns_in(code: bytes, address: int, machine: int) -> tuple[int, ...]:
    """The addresses of all RET instructions of a function; CodeNotUnderstoodError when that is not sure."""
    if machine == _AMD64:
        return _amd64(code, address)
    if machine == _ARM64:
        return _arm64(code, address)
    raise CodeNotUnderstoodError("its machine is neither amd64 nor arm64")


def _amd64(code: bytes, address: int) -> tuple[int, ...]:
    """Instructions follow each other without gaps, data is elsewhere: they are read one after the other."""
    import capstone  # noqa: PLC0415 - some MB, and only for programs that are not known yet

    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    found, at = [], address
    for start, length, mnemonic, operand in disassembler.disasm_lite(code, address):
        name = mnemonic.rpartition(" ")[2]
        if name == "ret":
            found.append(start)
        elif name.startswith("j"):
            _stays_inside(operand, range(address, address + len(code)))
        at = start + length
    if code[at - address :].strip(_PADDING):
        raise CodeNotUnderstoodError(f"its code at {at:#x} is not understood")
    return tuple(found)


def _stays_inside(operand: str, function: range) -> None:
    """A direct jump has a number for its operand."""
    if operand.startswith("0x") and int(operand, 16) not in function:
        raise CodeNotUnderstoodError(f"it goes on in another function ({operand})")


def _arm64(code: bytes, address: int) -> tuple[int, ...]:
    """Instructions are words; those that others load are constants, which Go puts between them."""
    words = struct.unpack(f"<{len(code) // _ARM64_BYTES}I", code[: len(code) // _ARM64_BYTES * _ARM64_BYTES])
    places = range(address, address + len(code), _ARM64_BYTES)
    constants = {at for start, word in zip(places, words, strict=False) for at in _loaded(start, word)}
    found = []
    for at, word in zip(places, words, strict=False):
        if at in constants:
            continue
        if word & _RET_MASK == _RET:
            found.append(at)
        elif word & _B_MASK == _B:
            target = at + _signed(word, 26) * _ARM64_BYTES
            _stays_inside(hex(target), range(address, address + len(code)))
    return tuple(found)


def _loaded(at: int, word: int) -> range:
    """The words of the constant that an instruction loads, from a place given in itself; mostly none."""
    if word & _LITERAL_MASK != _LITERAL:
        return range(0)
    start = at + _signed(word >> 5, 19) * _ARM64_BYTES
    return range(start, start + _LITERAL_BYTES[word >> 26 & 1][word >> 30], _ARM64_BYTES)


def _signed(value: int, bits: int) -> int:
    """The lowest bits as a number with a sign."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
