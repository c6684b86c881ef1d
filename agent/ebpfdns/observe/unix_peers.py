"""The other ends of unix sockets: where they listen, what lies unread there, and whose they are.

Owns: joining what sock_diag says of a network namespace's unix sockets with who has them open.
Must not know: netlink (`netlink` does), or which socket belongs to a resolver.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.errors import EbpfdnsError
from ebpfdns.observe.socket_owners import OwnerSearch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

Facts = dict[str, Any]


class Peers:
    """Those of one process at one moment: the sockets of its network namespace are read at most once."""

    def __init__(self, tid: int, likely_owners: Iterable[int] = ()) -> None:
        self.search = OwnerSearch(likely_owners)
        self._tid = tid
        self._table: dict[int, Facts] | None = None

    def of(self, inodes: AbstractSet[int]) -> dict[int, Facts]:
        """Inode of a socket → its peer {inode, path, listener_backlog, rx_queue_bytes, owner}, if any.

        One that was not accepted yet has a peer that nobody has open: its owner is who listens there.
        Empty when the namespace may not be entered.
        """
        if not inodes:
            return {}
        if self._table is None:
            self._table = _read_table(self._tid)
        table = self._table
        found = {inode: peer for inode in inodes if (peer := peer_of(table, inode)) is not None}
        # One without a path is no service's: both ends of a pair are mostly the same program's.
        named = [peer for peer in found.values() if peer["path"] is not None]
        owned = self.search.owners(
            {number for peer in named for number in (peer["inode"], peer["listener"]) if number}
        )
        for peer in found.values():
            listener = peer.pop("listener")
            peer["owner"] = owned.get(peer["inode"]) or owned.get(listener)
        return found


def _read_table(tid: int) -> dict[int, Facts]:
    """Inode → facts of the unix sockets of a thread's network namespace."""
    try:
        netns_fd = os.open(f"/proc/{tid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        return {facts["inode"]: facts for facts in netlink.unix_sockets(netns_fd)}
    except (EbpfdnsError, OSError):
        return {}
    finally:
        os.close(netns_fd)


def peer_of(table: dict[int, Facts], inode: int) -> Facts | None:
    """{inode, path, listener_backlog, rx_queue_bytes, listener} of the other end; None when there is none.

    `table`: inode → facts of all unix sockets there, as `netlink.unix_sockets` gives them.
    """
    peer = table.get(table.get(inode, {}).get("peer") or 0)
    if peer is not None:
        listener = _listener_at(table, peer["path"])
    else:  # waits to be accepted: only the one who listens knows of it
        listener = next((facts for facts in table.values() if inode in facts["waiting"]), None)
    if peer is None and listener is None:
        return None
    path = (peer or {}).get("path") or (listener or {}).get("path")
    return {
        "inode": peer["inode"] if peer else None,
        "path": path,
        "listener_backlog": listener["receive_queue"] if listener else None,
        "rx_queue_bytes": peer["receive_queue"] if peer else None,
        "listener": listener["inode"] if listener else None,
    }


def _listener_at(table: dict[int, Facts], path: str | None) -> Facts | None:
    """The socket that listens at a path: an accepted one has the name of the one that accepted it."""
    if path is None:
        return None
    return next((facts for facts in table.values() if facts["is_listening"] and facts["path"] == path), None)
