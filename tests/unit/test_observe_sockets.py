"""The kernel's lists of sockets: its texts understood, and what it says of sockets made here."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.sockets import TCP_STATES, parse_table, read_sockets

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
ports = st.integers(1, 65535)


def endpoint(address: IPv4Address | IPv6Address, port: int) -> str:
    """As the kernel writes it."""
    words = struct.unpack(f"={len(address.packed) // 4}I", address.packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def look(*made: socket.socket) -> list[dict[str, object]]:
    """What the kernel says of these sockets of this process."""
    inodes = [os.fstat(one.fileno()).st_ino for one in made]
    found = read_sockets(os.getpid(), frozenset(inodes))
    return [found[inode] for inode in inodes]


@given(addresses, st.tuples(ports, ports), st.sampled_from(sorted(TCP_STATES)), st.integers(0, 2**31))
def test_a_tcp_line_is_read_back(
    address: IPv4Address | IPv6Address, both_ports: tuple[int, int], state: int, queued: int
) -> None:
    """Addresses, ports, state, queues and retransmits are those the kernel wrote."""
    near, far = both_ports
    line = (
        f"   0: {endpoint(address, near)} {endpoint(address, far)} {state:02X} {queued:08X}:{queued:08X} "
        f"01:00000064 0000000A     0        0 77 1 000000005fab9643 100 0 0 10 0\n"
    )
    found = parse_table("tcp", HEAD + line.encode(), {77})[77]
    written = str(getattr(address, "ipv4_mapped", None) or address)
    assert (found["local"], found["remote"]) == ([written, near], [written, far])
    assert (found["state"], found["retransmits"], found["tx_queue_bytes"]) == (TCP_STATES[state], 10, queued)
    assert found["rx_queue_bytes"] == (None if found["state"] == "LISTEN" else queued)


@pytest.mark.parametrize("table", ["udp", "tcp6", "unix", "netlink"])
@given(text=st.binary(max_size=200))
def test_other_lines_mean_nothing(table: str, text: bytes) -> None:
    """Lines without a wanted inode are passed over, whatever they hold."""
    assert parse_table(table, b"header\n" + text, frozenset()) == {}


def test_a_mapped_address_is_an_ipv4_one() -> None:
    """A socket for both families that talks IPv4 shows the IPv4 address, to be compared with others."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as made:
        try:
            made.bind(("::ffff:127.0.0.1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        (seen,) = look(made)
        assert seen["local"] == ["127.0.0.1", made.getsockname()[1]]
    assert (seen["kind"], seen["remote"]) == ("udp", None)


def test_a_full_backlog_is_told_apart_from_bytes() -> None:
    """A listening socket's queue counts connections nobody has accepted; a connected one's counts bytes."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
    ):
        waiting, connected = look(listener, near)
        assert (waiting["state"], waiting["backlog"], waiting["rx_queue_bytes"]) == ("LISTEN", 1, None)
        far, _ = listener.accept()
        with far:
            far.sendall(b"12345")
            near.recv(5, socket.MSG_PEEK)
            (connected,) = look(near)
        assert (connected["state"], connected["rx_queue_bytes"], connected["retransmits"]) == (
            "ESTABLISHED",
            5,
            0,
        )


def test_a_unix_socket_has_a_path() -> None:
    """Type, state and path are told; queues and peer are not in the list, and null."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.bind("\0ebpfdns test \n" + str(os.getpid()))
        made.listen()
        (seen,) = look(made)
    assert (seen["kind"], seen["type"], seen["rx_queue_bytes"]) == ("unix", "stream", None)
    assert str(seen["path"]).startswith("@ebpfdns test")


def test_a_netlink_socket_is_one() -> None:
    """The socket by which getaddrinfo learns this host's addresses is recognised."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as made:
        made.bind((0, 0))
        assert look(made)[0]["kind"] == "netlink"


def test_a_process_that_is_gone_has_no_sockets() -> None:
    """Nobody's sockets cannot be read, and nothing is said of them."""
    assert read_sockets(4194305, frozenset({1})) == {}
