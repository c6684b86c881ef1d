"""How to get from a function to its caller at one address: the program that DWARF call frame information is.

Owns: running the instructions of a CIE and an FDE up to an address.
Must not know: files, processes, what the registers hold.

What is not understood (an expression, a register kept in another one) is UNKNOWN: whoever needs it must stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNDEFINED = "undefined"  # the caller's value is lost; for the return address: there is no caller
UNKNOWN = "unknown"  # it can be had, by means that are not understood here
MAX_INSTRUCTIONS = 10_000
_MAX_LEB128_BYTES = 10
_OPCODE_BITS, _OPERAND_BITS = 0xC0, 0x3F
_ADVANCE, _OFFSET, _RESTORE = 0x40, 0x80, 0xC0

#: What follows an opcode: u, s are LEB128 numbers, b is a block of so many bytes, digits a number of so many.
_OPERANDS = {
    0x00: "",  # nop
    0x02: "1",  # advance_loc1
    0x03: "2",
    0x04: "4",
    0x05: "uu",  # offset_extended
    0x06: "u",  # restore_extended
    0x07: "u",  # undefined
    0x08: "u",  # same_value
    0x09: "uu",  # register
    0x0A: "",  # remember_state
    0x0B: "",  # restore_state
    0x0C: "uu",  # def_cfa
    0x0D: "u",  # def_cfa_register
    0x0E: "u",  # def_cfa_offset
    0x0F: "b",  # def_cfa_expression
    0x10: "ub",  # expression
    0x11: "us",  # offset_extended_sf
    0x12: "us",  # def_cfa_sf
    0x13: "s",  # def_cfa_offset_sf
    0x14: "uu",  # val_offset
    0x15: "us",  # val_offset_sf
    0x16: "ub",  # val_expression
    0x2D: "",  # AARCH64_negate_ra_state
    0x2E: "u",  # GNU_args_size
}

Saved = int | str  # offset from the CFA at which the caller's value lies, UNDEFINED or UNKNOWN


@dataclass(frozen=True, slots=True)
class Program:
    """The instructions for one function, and what they count in."""

    start: int
    end: int
    initial: bytes
    instructions: bytes
    code_alignment: int
    data_alignment: int
    return_register: int
    is_signal_frame: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The CFA is the stack pointer of the caller after the return: a register plus an offset."""

    cfa_register: int | None  # None: by an expression
    cfa_offset: int
    saved: dict[int, Saved]
    return_register: int


@dataclass(slots=True)
class _State:
    """Registers of the machine that runs the instructions."""

    cfa_register: int | None = None
    cfa_offset: int = 0
    saved: dict[int, Saved] = field(default_factory=dict)

    def copy(self) -> _State:
        return _State(self.cfa_register, self.cfa_offset, dict(self.saved))


class NotUnderstoodError(Exception):
    """An instruction that makes no sense, or is cut off."""


def rules_at(program: Program, address: int) -> Rules | None:
    """The rules that hold at an address of this function; None when its instructions are not understood."""
    if program.is_signal_frame or not program.start <= address < program.end:
        return None
    state = _State()
    try:
        _run(program, program.initial, state, None, address)
        initial = state.copy()
        _run(program, program.instructions, state, initial, address)
    except NotUnderstoodError:
        return None
    return Rules(state.cfa_register, state.cfa_offset, state.saved, program.return_register)


def _run(program: Program, code: bytes, state: _State, initial: _State | None, address: int) -> None:
    """Run instructions until they speak of what lies behind the address."""
    remembered: list[_State] = []
    at, location = 0, program.start
    for _ in range(MAX_INSTRUCTIONS):
        if at >= len(code):
            return
        opcode, operands, at = _decode(code, at)
        if opcode in (_ADVANCE, 0x02, 0x03, 0x04):
            location += operands[0] * program.code_alignment
            if location > address:
                return
        elif opcode == 0x0A:  # noqa: PLR2004 - opcodes are named in the table
            remembered.append(state.copy())
        elif opcode == 0x0B:  # noqa: PLR2004
            if not remembered:
                raise NotUnderstoodError
            last = remembered.pop()
            state.cfa_register, state.cfa_offset, state.saved = last.cfa_register, last.cfa_offset, last.saved
        elif not _define_cfa(program, state, opcode, operands):
            _define_register(program, state, initial, opcode, operands)
    raise NotUnderstoodError


def _define_cfa(program: Program, state: _State, opcode: int, operands: tuple[int, ...]) -> bool:
    """An instruction about the CFA; False when it is about something else."""
    match opcode:
        case 0x0C:
            state.cfa_register, state.cfa_offset = operands
        case 0x0D:
            state.cfa_register = operands[0]
        case 0x0E:
            state.cfa_offset = operands[0]
        case 0x0F:
            state.cfa_register = None
        case 0x12:
            state.cfa_register, state.cfa_offset = operands[0], operands[1] * program.data_alignment
        case 0x13:
            state.cfa_offset = operands[0] * program.data_alignment
        case _:
            return False
    return True


def _define_register(
    program: Program, state: _State, initial: _State | None, opcode: int, operands: tuple[int, ...]
) -> None:
    """An instruction about where the caller's value of a register is."""
    match opcode:
        case 0x80 | 0x05 | 0x11:
            state.saved[operands[0]] = operands[1] * program.data_alignment
        case 0xC0 | 0x06:
            if initial is None:
                raise NotUnderstoodError
            state.saved.pop(operands[0], None)
            if operands[0] in initial.saved:
                state.saved[operands[0]] = initial.saved[operands[0]]
        case 0x07:
            state.saved[operands[0]] = UNDEFINED
        case 0x08:
            state.saved.pop(operands[0], None)
        case 0x09 | 0x10 | 0x14 | 0x15 | 0x16:
            state.saved[operands[0]] = UNKNOWN


def _decode(code: bytes, at: int) -> tuple[int, tuple[int, ...], int]:
    """The instruction at this place, its operands, and where the next one is."""
    opcode = code[at]
    at += 1
    primary = opcode & _OPCODE_BITS
    if primary in (_ADVANCE, _RESTORE):
        return primary, (opcode & _OPERAND_BITS,), at
    if primary == _OFFSET:
        factor, at = uleb128(code, at)
        return primary, (opcode & _OPERAND_BITS, factor), at
    layout = _OPERANDS.get(opcode)
    if layout is None:
        raise NotUnderstoodError
    operands: list[int] = []
    for kind in layout:
        if kind in "us":
            value, at = uleb128(code, at) if kind == "u" else sleb128(code, at)
            operands.append(value)
        elif kind == "b":
            length, at = uleb128(code, at)
            at += length
        else:
            operands.append(int.from_bytes(code[at : at + int(kind)], "little"))
            at += int(kind)
    if at > len(code):
        raise NotUnderstoodError
    return opcode, tuple(operands), at


def uleb128(code: bytes, at: int) -> tuple[int, int]:
    """A number in 7-bit pieces, and where the next thing is."""
    value = 0
    for index, byte in enumerate(code[at : at + _MAX_LEB128_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:  # noqa: PLR2004 - the last piece has no top bit
            return value, at + index + 1
    raise NotUnderstoodError


def sleb128(code: bytes, at: int) -> tuple[int, int]:
    """The same for a signed number."""
    value, after = uleb128(code, at)
    bits = 7 * (after - at)
    return value - (1 << bits) if value >> (bits - 1) else value, after
