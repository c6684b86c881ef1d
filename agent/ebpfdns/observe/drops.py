"""How this kernel tells of packets that it drops: the numbers of its reasons, and places in a packet.

Owns: reading both, from the tracepoint's description and from BTF (the kernel's own types).
Must not know: what is concluded from a drop. Linux tells reasons from 5.17 on; None before, and without BTF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ebpfdns.observe.kernel_types import BTF, kernel_types

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
    reader = kernel_types(btf)
    if reader is None:
        return None
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
