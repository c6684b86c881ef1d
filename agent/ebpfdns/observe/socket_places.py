"""Where a socket's protocol, its error and its peer's IPv6 address stand in this kernel's memory.

Owns: their places in struct sock. Must not know: what is read there, or by whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.observe.kernel_types import BTF, kernel_types

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SocketPlaces:
    """Byte offsets in struct sock, whose first member is struct sock_common."""

    protocol: int
    error: int
    address_v6: int


def socket_places(btf: Path = BTF) -> SocketPlaces | None:
    """All three, of this kernel; None when it does not tell them."""
    try:
        reader = kernel_types(btf.read_bytes())
    except OSError:
        return None
    if reader is None:
        return None
    of_socket = dict(reader.members_of("sock", "sk_protocol") or ())
    protocol, error = of_socket.get("sk_protocol"), of_socket.get("sk_err")
    address = dict(reader.members_of("sock_common", "skc_v6_daddr") or ()).get("skc_v6_daddr")
    if protocol is None or error is None or address is None:
        return None
    return SocketPlaces(protocol // 8, error // 8, address // 8)
