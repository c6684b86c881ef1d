"""The kernel's own types, as it describes them itself (BTF): where a member stands in a struct.

Owns: the format of /sys/kernel/btf/vmlinux. Must not know: what a struct is for.
"""

from __future__ import annotations

import struct
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")
BTF_HEADER = struct.Struct("<HBBIIIII")
BTF_MAGIC, KIND_STRUCT = 0xEB9F, 4
MEMBER, TYPE = struct.Struct("<III"), struct.Struct("<III")
#: more members than any struct of the kernel has
MAX_MEMBERS = 4096


def kernel_types(btf: bytes) -> KernelTypes | None:
    """The types in this text of the kernel; None when it is no such text."""
    if len(btf) < BTF_HEADER.size:
        return None
    magic, _, _, header_bytes, types_at, types_bytes, names_at, names_bytes = BTF_HEADER.unpack_from(btf)
    if magic != BTF_MAGIC:
        return None
    types = memoryview(btf)[header_bytes + types_at :][:types_bytes]
    names = memoryview(btf)[header_bytes + names_at :][:names_bytes]
    return KernelTypes(bytes(types), bytes(names))


class KernelTypes:
    """Structs by their names, found without reading the types in front of them: there are 100,000."""

    def __init__(self, types: bytes, names: bytes) -> None:
        self._types = types
        self._names = names

    def members_of(self, name: str, needed: str) -> list[tuple[str, int]] | None:
        """(member, offset in bits) of the struct of this name (empty: nameless) with a member `needed`."""
        wanted = self._number_of(needed)
        named = 0 if not name else self._number_of(name)
        if wanted is None or named is None:
            return None
        if name:
            return self._named(named, wanted)
        return self._nameless(wanted)

    def _named(self, number: int, wanted: int) -> list[tuple[str, int]] | None:
        for at in self._words(number):
            members = self._members(at)
            if members is not None and any(entry[0] == wanted for entry in members):
                return [(self._text(entry[0]), entry[2] & 0xFFFFFF) for entry in members]
        return None

    def _nameless(self, wanted: int) -> list[tuple[str, int]] | None:
        """Its member is found first; its head is the latest type in front of it that reaches so far."""
        for at in self._words(wanted):
            for count in range(MAX_MEMBERS):
                head = at - count * MEMBER.size - TYPE.size
                if head < 0:
                    break
                members = self._members(head)
                if members is not None and len(members) > count:
                    return [(self._text(entry[0]), entry[2] & 0xFFFFFF) for entry in members]
        return None

    def _members(self, at: int) -> list[tuple[int, int, int]] | None:
        """The members of the struct whose description stands here; None when it is no struct's."""
        if at + TYPE.size > len(self._types):
            return None
        _, info, size = TYPE.unpack_from(self._types, at)
        count = info & 0xFFFF
        if info >> 24 & 0x1F != KIND_STRUCT or not 0 < count <= MAX_MEMBERS or not 0 < size <= 1 << 16:
            return None
        end = at + TYPE.size + count * MEMBER.size
        if end > len(self._types):
            return None
        members = list(MEMBER.iter_unpack(self._types[at + TYPE.size : end]))
        offsets = [entry[2] & 0xFFFFFF for entry in members]
        is_sane = offsets == sorted(offsets) and all(bits < size * 8 for bits in offsets)
        return members if is_sane and all(entry[0] < len(self._names) for entry in members) else None

    def _words(self, number: int) -> list[int]:
        """Where this number stands as a word."""
        found, word = [], struct.pack("<I", number)
        at = self._types.find(word)
        while at >= 0:
            if at % 4 == 0:
                found.append(at)
            at = self._types.find(word, at + 1)
        return found

    def _number_of(self, name: str) -> int | None:
        at = self._names.find(b"\0" + name.encode() + b"\0")
        return at + 1 if at >= 0 else None

    def _text(self, number: int) -> str:
        end = self._names.find(b"\0", number)
        return self._names[number:end].decode("ascii", "replace")
