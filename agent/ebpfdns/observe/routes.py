"""Which way a packet to an address would take from a process's network namespace, by the kernel's own word.

Owns: RTM_GETROUTE in the namespace of a process. No packet is sent. Must not know: why somebody asks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Iterable

Facts = dict[str, Any]


def routes(tid: int, addresses: Iterable[str]) -> dict[str, Facts] | None:
    """Address → {kind, device, gateway, error}; `error`: what a send would meet. None: not allowed to ask."""
    try:
        netns_fd = os.open(f"/proc/{tid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return netlink.routes_to(netns_fd, list(addresses))
    except (EbpfdnsError, OSError):
        return None
    finally:
        os.close(netns_fd)
