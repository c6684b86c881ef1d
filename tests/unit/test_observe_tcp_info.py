"""What the kernel says of TCP connections: read from it, and taken apart whatever it says."""

from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import tcp_info

GONE = 4194305


def told(one: socket.socket) -> dict[str, int | None]:
    return tcp_info.tcp_info(os.getpid())[os.fstat(one.fileno()).st_ino]


@pytest.mark.skipif(os.geteuid() != 0, reason="entering a namespace needs root")
def test_bytes_each_way() -> None:
    """What was sent and what has come are counted apart, and one that only sends has received nothing."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        near.sendall(b"x" * 293)
        far.recv(293)
        assert (told(near)["bytes_sent"], told(near)["bytes_received"]) == (293, 0)
        assert (told(far)["bytes_sent"], told(far)["bytes_received"]) == (0, 293)
        assert 0 <= (told(near)["last_sent_ms"] or 0) < 60_000


def test_who_is_gone_has_no_connections() -> None:
    """A process that has ended is no reason to fail."""
    assert tcp_info.tcp_info(GONE) == {}


@given(st.binary(max_size=400))
def test_any_bytes_can_be_taken_apart(raw: bytes) -> None:
    """Cut or garbled replies give what can be known, and end."""
    found, _ = tcp_info.parse(raw)
    assert all(isinstance(inode, int) for inode in found)
