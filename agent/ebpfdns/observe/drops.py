"""How this kernel tells of packets that it drops: the numbers of its reasons, and places in a packet.

Owns: reading both, from the tracepoint's description and from BTF (the kernel's own types).
Must not know: what is concluded from a drop. Linux tells reasons from 5.17 on; None before, and without BTF.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")
BTF_HEADER = struct.Struct("<HBBIIIII")
BTF_MAGIC, KIND_STRUCT = 0xEB9F, 4
MEMBER, TYPE = struct.Struct("<III"), struct.Struct("<III")
#: more members than any struct of the kernel has
MAX_MEMBERS = 4096
_REASON = re.compile(r"\{ (\d+), \"(\w+)\" \}")


@dataclass(frozen=True, slots=True)
class DropLayout:
    """Numbers of `enum skb_drop_reason`, and byte offsets in `struct sk_buff`."""

    no_socket: int
    netfilter: int
    cgroup_egress: int
    head: int
    transport_header: int
    network_header: int


def drop_layout(tracefs: str | None, btf: Path = BTF) -> DropLayout | None:
    """Both, of this kernel; None when it does not tell them."""
    if tracefs is None:
        return None
    try:
        description = (Path(tracefs) / "events/skb/kfree_skb/format").read_text(encoding="utf-8")
        types = btf.read_bytes()
    except OSError:
        return None
    reasons = drop_reasons(description)
    places = packet_places(types)
    if places is None or not {"NO_SOCKET", "NETFILTER_DROP"} <= reasons.keys():
        return None
    cgroup_egress = reasons.get("BPF_CGROUP_EGRESS", reasons["NETFILTER_DROP"])
    return DropLayout(reasons["NO_SOCKET"], reasons["NETFILTER_DROP"], cgroup_egress, *places)


def drop_reasons(description: str) -> dict[str, int]:
    """Name → number, from the text of the tracepoint's format file."""
    return {name: int(number) for number, name in _REASON.findall(description)}


def packet_places(btf: bytes) -> tuple[int, int, int] | None:
    """Byte offsets of head, transport_header and network_header in struct sk_buff."""
    if len(btf) < BTF_HEADER.size:
        return None
    magic, _, _, header_bytes, types_at, types_bytes, names_at, names_bytes = BTF_HEADER.unpack_from(btf)
    if magic != BTF_MAGIC:
        return None
    types = memoryview(btf)[header_bytes + types_at :][:types_bytes]
    names = memoryview(btf)[header_bytes + names_at :][:names_bytes]
    reader = _Types(bytes(types), bytes(names))
    members = reader.members_of("sk_buff", "head")
    if members is None:
        return None
    direct = {name: bits for name, bits in members if name}
    places = [direct.get(name) for name in ("head", "transport_header", "network_header")]
    if places[1] is None:
        # Since 5.17 they stand in a nameless group of their own, right in front of `tail`.
        inside = reader.members_of("", "transport_header")
        around = [bits for (name, bits), (later, _) in pairwise(members) if later == "tail"]
        if inside is None or not around:
            return None
        group = dict(inside)
        places[1:] = [around[0] + group[name] if name in group else None for name in _HEADERS]
    head, transport, network = places
    if head is None or transport is None or network is None:
        return None
    return head // 8, transport // 8, network // 8


_HEADERS = ("transport_header", "network_header")


class _Types:
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
