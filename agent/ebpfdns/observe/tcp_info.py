"""TCP connections of a network namespace as the kernel knows them: how much went each way, and when last.

Owns: the sock_diag request for TCP and struct tcp_info. Must not know: what is sent through them.
Numbers that an old kernel does not give are None.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from ebpfdns.errors import EbpfdnsError
from ebpfdns.netlink import in_netns

if TYPE_CHECKING:
    from collections.abc import Iterator

Facts = dict[str, Any]

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_INFO = 2
#: ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT: those that somebody may wait for
STATES = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8
TIMEOUT_S = 0.5
READ_BYTES = 1 << 18
_HEADER = struct.Struct("=IHHII")
_INODE_AT, _MESSAGE_BYTES = 68, 72  # struct inet_diag_msg
#: name → place and code in struct tcp_info
_FIELDS = {
    "retransmits_now": (2, "B"),
    "last_sent_ms": (44, "I"),
    "last_received_ms": (52, "I"),
    "retransmits_total": (100, "I"),
    "bytes_acked": (120, "Q"),
    "bytes_received": (128, "Q"),
    "bytes_sent": (200, "Q"),
}


def tcp_info(tid: int) -> dict[int, Facts]:
    """Inode → facts of the TCP connections in a thread's network namespace; empty when they are not told."""
    try:
        netns_fd = os.open(f"/proc/{tid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return in_netns(netns_fd, _ask)
    except (EbpfdnsError, OSError, struct.error):
        return {}
    finally:
        os.close(netns_fd)


def _ask() -> dict[int, Facts]:
    found: dict[int, Facts] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as diagnosis:
        diagnosis.settimeout(TIMEOUT_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), STATES)
            flags = NLM_F_REQUEST | NLM_F_DUMP
            size = _HEADER.size + len(request)
            diagnosis.send(_HEADER.pack(size, SOCK_DIAG_BY_FAMILY, flags, 1, 0) + request)
            is_done = False
            while not is_done:
                entries, is_done = parse(diagnosis.recv(READ_BYTES))
                found |= entries
    return found


def parse(raw: bytes) -> tuple[dict[int, Facts], bool]:
    """Inode → facts in one reply of the kernel, and whether it is the last one."""
    found: dict[int, Facts] = {}
    at = 0
    while at + _HEADER.size <= len(raw):
        size, kind, *_ = _HEADER.unpack_from(raw, at)
        if kind in {NLMSG_DONE, NLMSG_ERROR} or size < _HEADER.size:
            return found, True
        body = raw[at + _HEADER.size : at + size]
        if kind == SOCK_DIAG_BY_FAMILY and len(body) >= _MESSAGE_BYTES:
            (inode,) = struct.unpack_from("=I", body, _INODE_AT)
            found[inode] = next((_info(info) for info in _attributes(body, INET_DIAG_INFO)), {})
        at += -(-size // 4) * 4
    return found, False


def _attributes(body: bytes, wanted: int) -> Iterator[bytes]:
    at = _MESSAGE_BYTES
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:  # noqa: PLR2004 - its own header
            return
        if kind == wanted:
            yield body[at + 4 : at + size]
        at += -(-size // 4) * 4


def _info(raw: bytes) -> Facts:
    return {
        name: struct.unpack_from(f"={code}", raw, at)[0] if at + struct.calcsize(code) <= len(raw) else None
        for name, (at, code) in _FIELDS.items()
    }
