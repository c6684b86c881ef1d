"""Event loops seen from outside: their members, what is ready, what lies unread in a socket."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import loop_members, receive_queues
from ebpfdns.observe.loop_members import Member
from ebpfdns.observe.unix_queues import UnixQueues

ME = os.getpid()
UDP = b"\n".join(
    (
        b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
        b"  77: 0100007F:9C41 350200C0:0035 01 00000000:00000340 00:00000000 00000000     0        0 4711 2",
        b"  78: 0100007F:9C42 350200C0:0035 01 00000000:00000000 00:00000000 00000000     0        0 4712 2",
    )
)


class NoUnixQueues(UnixQueues):
    """A sock_diag that knows nothing."""

    def read(self, tid, inodes):  # noqa: ARG002
        return {}


def test_members_and_readiness_of_an_epoll_instance():
    """Sockets with something in them and an eventfd that was written are ready; silent ones are not."""
    with (
        select.epoll() as epoll,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as empty,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        written, silent = os.eventfd(3), os.eventfd(0)
        try:
            for bound in (full, empty):
                bound.bind(("127.0.0.1", 0))
            full_fd, server_fd = full.fileno(), server.fileno()
            members = [full.fileno(), empty.fileno(), server.fileno(), written, silent]
            for fd in members:
                epoll.register(fd, select.EPOLLIN | (select.EPOLLET if fd == full.fileno() else 0))
            only_out = os.eventfd(1)
            epoll.register(only_out, select.EPOLLOUT)
            empty.sendto(b"four", full.getsockname())
            with socket.create_connection(server.getsockname()):
                found = loop_members.of_epoll(ME, epoll.fileno())
                ready = {facts["fd"]: facts for facts in loop_members.ready(ME, found, NoUnixQueues())}
            os.close(only_out)
        finally:
            os.close(written)
            os.close(silent)
    assert found == [Member(fd, fd == full_fd) for fd in sorted(members)]
    assert ready.keys() == {full_fd, server_fd, written}
    assert ready[full_fd]["rx_queue_bytes"] > 0
    assert ready[full_fd]["is_edge_triggered"]
    assert ready[written]["kind"] == "eventfd"


def entries(*rows):
    return b"".join(struct.pack("<iHH", *row) for row in rows)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(entries((0, 1, 0), (1, 1, 1)), [0, 1], id="two to read from"),
        pytest.param(entries((0, 1, 0), (-1, 1, 0), (1, 4, 0)), [0], id="one left out, one to write to"),
        pytest.param(entries((0, 1, 0), (900_000, 1, 0)), [], id="a descriptor that is not open"),
        pytest.param(entries((0, 1, 0), (1, 0x8001, 0)), [], id="no events that there are"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_members_of_a_poll_are_read_from_memory(raw, expected):
    """Entries as they stand there; memory that holds something else by now gives none."""
    there = ctypes.create_string_buffer(raw, max(len(raw), 1))
    found = loop_members.of_poll(ME, ctypes.addressof(there), len(raw) // 8)
    assert [member.fd for member in found] == expected


@given(st.sets(st.integers(0, 63)))
def test_members_of_a_select(fds):
    """A bit is a descriptor."""
    found = loop_members.of_select(sum(1 << fd for fd in fds))
    assert [member.fd for member in found] == sorted(fds)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"kind": "udp", "rx_queue_bytes": 1}, True),
        ({"kind": "udp", "rx_queue_bytes": 0, "state": "UNCONNECTED"}, False),
        ({"kind": "tcp", "rx_queue_bytes": 0, "state": "CLOSE_WAIT"}, True),
        ({"kind": "tcp", "rx_queue_bytes": 0, "state": "ESTABLISHED"}, False),
        ({"kind": "tcp", "rx_queue_bytes": None, "backlog": 2, "state": "LISTEN"}, True),
        ({"kind": "unix", "rx_queue_bytes": None}, False),
        ({}, False),
    ],
)
def test_what_can_be_read_is_ready(facts, expected):
    """Bytes, connections, an end of the stream; what is not known is not ready."""
    assert loop_members.is_ready(facts) is expected


def test_queues_are_found_by_the_own_port():
    """Only the wanted ports, with what lies there."""
    found = receive_queues.parse_queues("udp", UDP, {"udp:40001", "udp:40003"})
    assert found == {"udp:40001": {"inode": 4711, "rx_queue_bytes": 832}}


@given(st.binary(max_size=200))
def test_any_text_is_a_table(text):
    """Junk in /proc is no socket, and no error but a wrong number."""
    try:
        found = receive_queues.parse_queues("udp", b"head\n" + text, {"udp:1"})
    except ValueError:
        return
    assert found.keys() <= {"udp:1"}


def test_the_queue_of_an_own_socket():
    """The bytes and the descriptor of a socket of this process; a port of nobody's is not found."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        full.bind(("127.0.0.1", 0))
        sender.sendto(b"four", full.getsockname())
        name = f"udp:{full.getsockname()[1]}"
        found = receive_queues.receive_queues(ME, {name, "udp:0"})
        assert found.keys() == {name}
        assert found[name]["fd"] == full.fileno()
        assert found[name]["rx_queue_bytes"] > 0
