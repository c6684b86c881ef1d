"""A request of libuv, as it lies in memory: whether it waits in the queue, and where its name is."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.thread_pools import waiting_hostname

REQUEST, HEAD, HOSTNAME = 0x1000, 0x9000, 0x5000
QUEUE = REQUEST + 96
WORK = 0xCAFE


def request(
    kind: int = 8, work: int = WORK, following: int = HEAD, previous: int = HEAD, name: int = HOSTNAME
) -> bytes:
    """The beginning of a struct uv_getaddrinfo_s."""
    fields = {8: ("i", kind), 72: ("Q", work), 96: ("Q", following), 104: ("Q", previous), 128: ("Q", name)}
    raw = bytearray(136)
    for at, (code, value) in fields.items():
        struct.pack_into(f"={code}", raw, at, value)
    return bytes(raw)


def found(raw: bytes, links: tuple[int, int] = (QUEUE, QUEUE)) -> int | None:
    """What is made of a request in this memory, where the queue's head has these links."""
    pieces = {REQUEST: raw, HEAD: struct.pack("=QQ", *links)}
    return waiting_hostname(REQUEST, lambda address, size: pieces.get(address, b"")[:size])


def test_waiting() -> None:
    """A request that its neighbours in the queue know waits, and its name is told."""
    assert found(request()) == HOSTNAME


def test_not_waiting() -> None:
    """Begun with, done, given back, of another kind, or unreadable: none of these waits."""
    begun_with = request(following=QUEUE, previous=QUEUE)
    done, without_name, other_kind = request(work=0), request(name=0), request(kind=7)
    for raw in (begun_with, done, without_name, other_kind, request(following=1), request()[:135], b""):
        assert found(raw) is None
    assert found(request(), (QUEUE, 0)) is None
    assert found(request(), (0, QUEUE)) is None


@given(st.binary(max_size=200), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
def test_any_memory(raw: bytes, links: tuple[int, int]) -> None:
    """Whatever lies there, the answer is an address or none."""
    assert found(raw, links) is None or found(raw, links) > 0  # type: ignore[operator]
