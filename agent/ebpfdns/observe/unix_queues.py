"""What lies unread in unix sockets, which /proc does not tell: asked by sock_diag.

Owns: when that is asked. Must not know: netlink (`netlink` does), or whose sockets these are.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ebpfdns import netlink
from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet


class UnixQueues:
    """Queues of unix sockets, from the second question on: until then pyroute2 is loaded beside."""

    def __init__(self) -> None:
        self._is_loading = False

    def read(self, tid: int, inodes: AbstractSet[int]) -> dict[int, int]:
        """Inode → bytes (of a listening socket: connections) of those sockets that are known now."""
        if not inodes:
            return {}
        if not netlink.is_loaded():
            if not self._is_loading:
                self._is_loading = True
                netlink.load_beside()
            return {}
        try:
            netns_fd = os.open(f"/proc/{tid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return {}
        try:
            sockets = netlink.unix_sockets(netns_fd)
        except (EbpfdnsError, OSError):
            return {}
        finally:
            os.close(netns_fd)
        return {
            facts["inode"]: facts["receive_queue"]
            for facts in sockets
            if facts["inode"] in inodes and facts["receive_queue"] is not None
        }
