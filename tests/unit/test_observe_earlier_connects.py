"""What a snapshot adds to the record of a connect that began before tracing."""

from __future__ import annotations

import struct
from typing import Any

from ebpfdns.model import boundary, decode
from ebpfdns.model.boundary import ConnectFlag
from ebpfdns.observe.earlier_connects import refreshed

AT = {field: at for field, at, _ in boundary.CONNECT.offsets()}
SOCKET: dict[str, Any] = {"fd": 5, "kind": "tcp", "state": "SYN_SENT", "retransmits": 3}


def record(flags: int) -> bytes:
    raw = bytearray(boundary.CONNECT.size)
    struct.pack_into("=II", raw, 0, boundary.FrameKind.CONNECT, flags)
    struct.pack_into("=I", raw, AT["fd"], 5)
    struct.pack_into("=H", raw, AT["family"], 2)
    return bytes(raw)


def test_the_socket_tells_its_state_and_retransmits() -> None:
    """The kernel's programs do not know the socket of such a connect; the table of sockets does."""
    look = {"syscall": "connect", "sockets": [SOCKET]}
    found = decode.connect(refreshed(record(ConnectFlag.BEFORE_ATTACH), look))
    assert (found.tcp_state, found.retransmits, found.before_attach) == ("SYN_SENT", 3, True)


def test_other_records_stay_as_they_are() -> None:
    """One that a probe has made, or a thread that is somewhere else."""
    look = {"syscall": "connect", "sockets": [SOCKET]}
    assert refreshed(record(0), look) == record(0)
    earlier = record(ConnectFlag.BEFORE_ATTACH)
    for other in (None, {"syscall": "poll", "sockets": [SOCKET]}, {"syscall": "connect", "sockets": []}):
        assert refreshed(earlier, other) == earlier
