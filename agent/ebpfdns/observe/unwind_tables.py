"""Which call frame information an ELF file has for an address: .eh_frame, by the table of .eh_frame_hdr.

Owns: the binary search in .eh_frame_hdr, and taking the one FDE and CIE apart that are needed.
Must not know: files, processes, what the instructions mean.

Addresses are those of the file itself (before it is moved in memory). Reading is handed in. Tables may be
broken or hostile: what makes no sense is answered with None.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import unwind_rules
from ebpfdns.observe.unwind_rules import Program

if TYPE_CHECKING:
    from collections.abc import Callable

    #: address, size → as many of these bytes as the file has
    ReadAt = Callable[[int, int], bytes]

MIN_RECORD_BYTES, MAX_RECORD_BYTES = 4, 64 << 10
MAX_FDES = 1 << 24
#: version 1; .eh_frame by pcrel sdata4; count by udata4; table by datarel sdata4: what all linkers write
_SEARCH_TABLE = b"\x01\x1b\x03\x3b"
_HEADER_BYTES = 12
_ENTRY = struct.Struct("<ii")
_PC_RELATIVE = 0x10
#: low half of a pointer encoding → bytes, signed
_POINTERS = {0x00: (8, False), 0x02: (2, False), 0x03: (4, False), 0x04: (8, False)} | {
    0x0A: (2, True),
    0x0B: (4, True),
    0x0C: (8, True),
}
_ADDRESS_BITS = (1 << 64) - 1


class _Cie(NamedTuple):
    """What several functions share."""

    code_alignment: int
    data_alignment: int
    return_register: int
    pointer_encoding: int
    has_augmentation_bytes: bool
    is_signal_frame: bool
    instructions: bytes


def find_program(read: ReadAt, header_address: int, address: int) -> Program | None:
    """The call frame information for an address; None when there is none, or it is not understood."""
    fde_address = _search(read, header_address, address)
    if fde_address is None:
        return None
    try:
        return _program(read, fde_address, address)
    except (IndexError, KeyError, ValueError, unwind_rules.NotUnderstoodError):
        return None


def _search(read: ReadAt, header_address: int, address: int) -> int | None:
    """The address of the last FDE that starts at or below this address."""
    header = read(header_address, _HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_SEARCH_TABLE):
        return None
    low, high = 0, min(int.from_bytes(header[8:12], "little"), MAX_FDES)
    found = None
    while low < high:
        middle = (low + high) // 2
        raw = read(header_address + _HEADER_BYTES + middle * _ENTRY.size, _ENTRY.size)
        if len(raw) < _ENTRY.size:
            return None
        start, fde = _ENTRY.unpack(raw)
        if header_address + start <= address:
            found, low = header_address + fde, middle + 1
        else:
            high = middle
    return found


def _program(read: ReadAt, fde_address: int, address: int) -> Program | None:
    """Take the FDE and its CIE apart; None when the function ends before the address."""
    fde = _record(read, fde_address)
    back = int.from_bytes(fde[:4], "little")
    cie = _cie(_record(read, fde_address + 4 - back)) if back else None
    size_and_sign = _POINTERS.get(cie.pointer_encoding & 0x0F) if cie else None
    if cie is None or size_and_sign is None or cie.pointer_encoding & 0xF0 not in (0, _PC_RELATIVE):
        return None
    size, is_signed = size_and_sign
    start = int.from_bytes(fde[4 : 4 + size], "little", signed=is_signed)
    if cie.pointer_encoding & _PC_RELATIVE:
        start += fde_address + 8
    start &= _ADDRESS_BITS
    at = 4 + 2 * size
    end = start + int.from_bytes(fde[4 + size : at], "little")
    if at > len(fde) or not start <= address < end:
        return None
    if cie.has_augmentation_bytes:
        length, at = unwind_rules.uleb128(fde, at)
        at += length
    return Program(
        start=start,
        end=end,
        initial=cie.instructions,
        instructions=fde[at:],
        code_alignment=cie.code_alignment,
        data_alignment=cie.data_alignment,
        return_register=cie.return_register,
        is_signal_frame=cie.is_signal_frame,
    )


def _cie(raw: bytes) -> _Cie | None:
    """Take a CIE apart; None when it has parts that are not known, which might change what follows."""
    version = raw[4]
    if int.from_bytes(raw[:4], "little") != 0 or version not in (1, 3):
        return None
    text_end = raw.index(b"\0", 5)
    augmentation = raw[5:text_end].decode("ascii")
    code_alignment, at = unwind_rules.uleb128(raw, text_end + 1)
    data_alignment, at = unwind_rules.sleb128(raw, at)
    return_register, at = (raw[at], at + 1) if version == 1 else unwind_rules.uleb128(raw, at)
    pointer_encoding: int | None = 0
    if augmentation:
        length, at = unwind_rules.uleb128(raw, at)
        pointer_encoding = _pointer_encoding(augmentation, raw[at : at + length])
        at += length
    if pointer_encoding is None:
        return None
    return _Cie(
        code_alignment=code_alignment,
        data_alignment=data_alignment,
        return_register=return_register,
        pointer_encoding=pointer_encoding,
        has_augmentation_bytes=bool(augmentation),
        is_signal_frame="S" in augmentation,
        instructions=raw[at:],
    )


def _pointer_encoding(augmentation: str, values: bytes) -> int | None:
    """How an FDE writes its addresses; None when the CIE has a part that is not known."""
    if not augmentation.startswith("z"):
        return None
    encoding, at = 0, 0
    for letter in augmentation[1:]:
        if letter == "R":
            encoding = values[at]
        elif letter == "P":  # an encoding, and a pointer to a function that does not matter here
            at += _POINTERS[values[at] & 0x0F][0]
        elif letter not in "LSB":
            return None
        at += letter in "RPL"
    return encoding


def _record(read: ReadAt, address: int) -> bytes:
    """The bytes of a CIE or FDE behind its length; ValueError when there is none."""
    length = int.from_bytes(read(address, 4), "little")
    if not MIN_RECORD_BYTES <= length <= MAX_RECORD_BYTES:
        raise ValueError(length)
    raw = read(address + 4, length)
    if len(raw) < length:
        raise ValueError(length)
    return raw
