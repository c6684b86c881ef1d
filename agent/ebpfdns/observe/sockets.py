"""The sockets of a process's network namespace, as /proc lists them.

Owns: /proc/PID/net/{udp,udp6,tcp,tcp6,unix,netlink}.
Must not know: which sockets matter, or what is sent through them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

Facts = dict[str, Any]

TCP_STATES = {
    0x01: "ESTABLISHED",
    0x02: "SYN_SENT",
    0x03: "SYN_RECV",
    0x04: "FIN_WAIT1",
    0x05: "FIN_WAIT2",
    0x06: "TIME_WAIT",
    0x07: "CLOSE",
    0x08: "CLOSE_WAIT",
    0x09: "LAST_ACK",
    0x0A: "LISTEN",
    0x0B: "CLOSING",
}
_UDP_STATES = {0x01: "ESTABLISHED", 0x07: "UNCONNECTED"}
_UNIX_STATES = {1: "UNCONNECTED", 2: "CONNECTING", 3: "CONNECTED", 4: "DISCONNECTING"}
_UNIX_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
_UNIX_PATH_COLUMN = 7
_INODE_COLUMN = 9
_ACCEPTS = 0x10000  # __SO_ACCEPTCON, in the flags of a unix socket
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
#: what a TCP socket's timer will do: net/ipv4/tcp_ipv4.c, get_tcp4_sock
_TIMERS = {1: "retransmit", 2: "keepalive", 3: "time_wait", 4: "zero_window_probe"}
#: a thousand sockets of one process mostly go to the same few servers
FEW_ADDRESSES = 256
_TABLES = ("udp", "tcp", "unix", "udp6", "tcp6", "netlink")


def read_sockets(pid: int, inodes: AbstractSet[int]) -> dict[int, Facts]:
    """What is known of the sockets with these inode numbers; no more tables are read than it takes."""
    found: dict[int, Facts] = {}
    for table in _TABLES:
        if inodes <= found.keys():
            break
        try:
            with open(f"/proc/{pid}/net/{table}", "rb") as file:  # noqa: PTH123 - read in one piece, often
                text = file.read()
        except OSError:
            continue  # gone, refused, or a kernel without IPv6
        found |= parse_table(table, text, inodes)
    return found


def inode_of(tid: int, fd: int) -> int | None:
    """The inode number of the socket behind a descriptor; None when it is no socket, or refused."""
    try:
        match = _SOCKET.fullmatch(os.readlink(f"/proc/{tid}/fd/{fd}"))  # noqa: PTH115 - a single call each
    except OSError:
        return None
    return int(match[1]) if match else None


def udp_bound(pid: int, port: int | None) -> dict[str, Facts] | None:
    """Address → {inode, rx_queue_bytes} of UDP sockets bound to a port, or any; None: may not be read."""
    found: dict[str, Facts] = {}
    was_read = False
    for table in ("udp", "udp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", "rb") as file:  # noqa: PTH123
                lines = file.read().split(b"\n")[1:]
        except OSError:
            continue
        was_read = True
        for columns in map(bytes.split, lines):
            if len(columns) > _INODE_COLUMN and port in (None, int(columns[1].rpartition(b":")[2], 16)):
                facts = _udp(columns)
                inode = int(columns[_INODE_COLUMN])
                found.setdefault(
                    facts["local"][0], {"inode": inode, "rx_queue_bytes": facts["rx_queue_bytes"]}
                )
    return found if was_read else None


def unix_listeners(pid: int, paths: AbstractSet[str]) -> dict[str, int]:
    """Path → inode of the sockets that listen there, in the network namespace of a process."""
    try:
        with open(f"/proc/{pid}/net/unix", "rb") as file:  # noqa: PTH123 - read in one piece
            lines = file.read().split(b"\n")[1:]
    except OSError:
        return {}
    found = {}
    for columns in (line.split(maxsplit=_UNIX_PATH_COLUMN) for line in lines):
        if len(columns) > _UNIX_PATH_COLUMN and int(columns[3], 16) & _ACCEPTS:
            path = columns[_UNIX_PATH_COLUMN].decode("utf-8", "backslashreplace")
            if path in paths:
                found[path] = int(columns[6])
    return found


def parse_table(table: str, text: bytes, inodes: AbstractSet[int]) -> dict[int, Facts]:
    """Inode → facts of the wanted sockets in the text of /proc/net/TABLE."""
    parse, column = _PARSERS[table]
    wanted = {str(inode).encode() for inode in inodes}
    found: dict[int, Facts] = {}
    for line in text.split(b"\n")[1:]:
        columns = line.split(maxsplit=_UNIX_PATH_COLUMN) if table == "unix" else line.split()
        if len(columns) > column and columns[column] in wanted:
            found[int(columns[column])] = {"kind": table.removesuffix("6"), **parse(columns)}
    return found


def _inet(columns: list[bytes]) -> Facts:
    """What udp and tcp have in common."""
    remote = _endpoint(columns[2])
    transmit, _, receive = columns[4].partition(b":")
    return {
        "local": _endpoint(columns[1]),
        "remote": remote if remote[1] else None,
        "rx_queue_bytes": int(receive, 16),
        "tx_queue_bytes": int(transmit, 16),
    }


def _udp(columns: list[bytes]) -> Facts:
    """A UDP socket: an "ESTABLISHED" one is connected, and hears its peer only."""
    return {"state": _UDP_STATES.get(int(columns[3], 16)), **_inet(columns), "drops": int(columns[-1])}


def _tcp(columns: list[bytes]) -> Facts:
    """A TCP socket; the receive queue of one that listens counts connections, not bytes."""
    facts = {
        "state": TCP_STATES.get(int(columns[3], 16)),
        **_inet(columns),
        "retransmits": int(columns[6], 16),
        "timer": _timer(columns[5]),
    }
    if facts["state"] == "LISTEN":
        facts |= {"rx_queue_bytes": None, "backlog": facts["rx_queue_bytes"]}
    return facts


def _timer(text: bytes) -> Facts | None:
    """{kind, expires_ms} of a timer that runs."""
    kind, _, left = text.partition(b":")
    name = _TIMERS.get(int(kind, 16))
    return None if name is None else {"kind": name, "expires_ms": int(left, 16) * 1000 / _TICKS_PER_S}


def _unix(columns: list[bytes]) -> Facts:
    """A unix socket; its queues and its peer are not listed. The path of an abstract one starts with @."""
    path = columns[_UNIX_PATH_COLUMN] if len(columns) > _UNIX_PATH_COLUMN else None
    return {
        "state": _UNIX_STATES.get(int(columns[5], 16)),
        "type": _UNIX_TYPES.get(int(columns[4], 16)),
        "path": None if path is None else path.decode("utf-8", "backslashreplace"),
        "local": None,
        "remote": None,
        "rx_queue_bytes": None,
        "tx_queue_bytes": None,
    }


def _netlink(columns: list[bytes]) -> Facts:
    """A netlink socket: getaddrinfo asks the kernel for its own addresses."""
    return {
        "state": None,
        "local": None,
        "remote": None,
        "rx_queue_bytes": int(columns[4]),
        "tx_queue_bytes": int(columns[5]),
    }


def _endpoint(text: bytes) -> list[Any]:
    """[address, port] of `0100007F:0035`: words in this machine's byte order, the port as it is read."""
    address, _, port = text.partition(b":")
    return [_address(address), int(port, 16)]


@lru_cache(maxsize=FEW_ADDRESSES)
def _address(text: bytes) -> str:
    words = [int(word, 16) for word in re.findall(rb"[0-9A-Fa-f]{8}", text)]
    raw = struct.pack(f"={len(words)}I", *words)
    ip = ipaddress.ip_address(raw)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


#: table → how a line of it is read, and the column with the inode
_PARSERS: dict[str, tuple[Callable[[list[bytes]], Facts], int]] = {
    "udp": (_udp, 9),
    "udp6": (_udp, 9),
    "tcp": (_tcp, 9),
    "tcp6": (_tcp, 9),
    "unix": (_unix, 6),
    "netlink": (_netlink, 9),
}
