"""Dropped packets: what the kernel's own types and its tracepoint say of them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import drops, kernel_types
from ebpfdns.observe.socket_places import SocketPlaces, socket_places

if TYPE_CHECKING:
    from pathlib import Path

STRUCT = 4 << 24


def btf(*structs: tuple[str, list[tuple[str, int]]]) -> bytes:
    """Types as the kernel lays them out: structs of (member, offset in bytes)."""
    names, types = b"\0", b""

    def number(name: str) -> int:
        nonlocal names
        if not name:
            return 0
        at = names.find(b"\0" + name.encode() + b"\0")
        if at < 0:
            names += name.encode() + b"\0"
            at = names.find(b"\0" + name.encode() + b"\0")
        return at + 1

    for name, members in structs:
        types += struct.pack("<III", number(name), STRUCT | len(members), 232)
        types += b"".join(struct.pack("<III", number(member), 7, at * 8) for member, at in members)
    head = kernel_types.BTF_HEADER.pack(
        kernel_types.BTF_MAGIC, 1, 0, 24, 0, len(types), len(types), len(names)
    )
    return head + types + names


GROUP = ("", [("priority", 4), ("transport_header", 50), ("network_header", 52), ("mac_header", 54)])


@pytest.mark.parametrize(
    ("structs", "expected"),
    [
        (
            [("sk_buff", [("next", 0), ("", 128), ("tail", 184), ("head", 192)]), GROUP],
            (192, 178, 180),
        ),
        (
            [("sk_buff", [("next", 0), ("transport_header", 176), ("network_header", 178), ("head", 192)])],
            (192, 176, 178),
        ),
        ([("sk_buff", [("next", 0), ("head", 192)])], None),
        ([("sk_buff", [("next", 0), ("tail", 184), ("head", 192)])], None),
        ([GROUP], None),
    ],
)
def test_places_in_a_packet(structs, expected):
    """The headers are found in the struct itself and in its nameless group, or nowhere."""
    assert drops.packet_places(btf(("other", [("head", 8)]), *structs)) == expected


@given(st.binary(max_size=300), st.booleans())
def test_bytes_that_are_no_types_say_nothing(rubbish, has_head):
    """Whatever stands there: places, or None."""
    head = (
        kernel_types.BTF_HEADER.pack(kernel_types.BTF_MAGIC, 1, 0, 24, 0, 200, 200, 100) if has_head else b""
    )
    assert drops.packet_places(head + rubbish) is None


def test_reasons_of_a_description():
    """Names and numbers stand in the text of the tracepoint."""
    text = '__print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" })'
    assert drops.drop_reasons(text) == {"NOT_SPECIFIED": 2, "NO_SOCKET": 3}


def test_a_kernel_that_tells_no_reasons(tmp_path: Path):
    """Before 5.17 the tracepoint has none, without BTF there are no types: drops stay unseen."""
    place = tmp_path / "events/skb/kfree_skb"
    place.mkdir(parents=True)
    types = tmp_path / "btf"
    types.write_bytes(btf(("sk_buff", [("", 128), ("tail", 184), ("head", 192)]), GROUP))
    (place / "format").write_text('print fmt: "skbaddr=%p"')
    assert drops.drop_layout(str(tmp_path), types) is None
    (place / "format").write_text('{ 3, "NO_SOCKET" }, { 8, "NETFILTER_DROP" }')
    assert drops.drop_layout(str(tmp_path), types) == drops.DropLayout(3, 8, 8, 192, 178, 180)
    assert drops.drop_layout(str(tmp_path), tmp_path / "absent") is None
    assert drops.drop_layout(None, types) is None


@pytest.mark.parametrize(
    ("structs", "expected"),
    [
        (
            [
                ("sock_common", [("skc_daddr", 0), ("skc_v6_daddr", 56)]),
                ("sock", [("sk_err", 4), ("sk_protocol", 216)]),
            ],
            SocketPlaces(216, 4, 56),
        ),
        ([("sock", [("sk_err", 4), ("sk_protocol", 216)])], None),
        ([], None),
    ],
)
def test_places_in_a_socket(structs, expected, tmp_path: Path):
    """Protocol and IPv6 address are found by the names of their members, or not at all."""
    file = tmp_path / "vmlinux"
    file.write_bytes(btf(("other", [("head", 8)]), *structs))
    assert socket_places(file) == expected


def test_a_kernel_without_types(tmp_path: Path):
    """Without BTF nothing is known of a socket's memory."""
    assert socket_places(tmp_path / "vmlinux") is None
