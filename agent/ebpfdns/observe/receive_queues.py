"""What lies unread in the sockets that a process asked from, found by their own port.

Owns: the receive queues in /proc/PID/net, and which descriptor of the process is which socket.
Must not know: what follows from an answer that lies there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import QueryFlag
from ebpfdns.observe.leftovers import queries_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

MAX_DESCRIPTORS = 4096
LOCAL_COLUMN, QUEUES_COLUMN, INODE_COLUMN = 1, 4, 9

TRANSPORTS = {6: "tcp", 17: "udp"}

#: where in a struct lookup the number of its queries stands, and the flags of each: mostly none is answered
_COUNT_AT = next(at for field, at, _ in boundary.LOOKUP.offsets() if field == "query_count")
_FLAGS_AT = next(at for field, at, _ in boundary.QUERY.offsets() if field == "flags")
_FLAGS = [
    boundary.LOOKUP.size + number * boundary.QUERY.size + _FLAGS_AT for number in range(boundary.MAX_QUERIES)
]

#: "udp:40001" → {fd, inode, rx_queue_bytes}
Queues = dict[str, dict[str, Any]]


def with_answers(raw: bytes, before_ns: int = (1 << 64) - 1) -> set[str]:
    """Names of the sockets of a struct lookup to which an answer came before a time."""
    if not any(raw[at] & QueryFlag.ANSWERED for at in _FLAGS[: raw[_COUNT_AT]]):
        return set()
    return {
        f"{TRANSPORTS[query.transport]}:{query.local_port}"
        for query in queries_of(raw)
        if query.local_port
        and query.transport in TRANSPORTS
        and query.flags & QueryFlag.ANSWERED
        and query.reply_ns < before_ns
    }


def receive_queues(tid: int, wanted: AbstractSet[str]) -> Queues:
    """The queue of each of these sockets; `tid`: a thread of the process that is alive. Absent: not found."""
    found: Queues = {}
    for transport in sorted({name.partition(":")[0] for name in wanted}):
        for table in (transport, f"{transport}6"):
            found |= parse_queues(transport, _read(f"/proc/{tid}/net/{table}"), wanted)
    fds = _descriptors(tid, {facts["inode"] for facts in found.values()})
    # A socket of the same port that another process has is not this one's.
    return {name: {"fd": fds[f["inode"]], **f} for name, f in found.items() if f["inode"] in fds}


def parse_queues(transport: str, text: bytes, wanted: AbstractSet[str]) -> Queues:
    """Those of the wanted sockets that stand in the text of /proc/net/TABLE."""
    found: Queues = {}
    for line in text.splitlines()[1:]:
        columns = line.split()
        if len(columns) <= INODE_COLUMN:
            continue
        name = f"{transport}:{int(columns[LOCAL_COLUMN].rpartition(b':')[2], 16)}"
        inode = int(columns[INODE_COLUMN])
        if name in wanted and inode:
            unread = int(columns[QUEUES_COLUMN].partition(b":")[2], 16)
            found[name] = {"inode": inode, "rx_queue_bytes": unread}
    return found


def _descriptors(tid: int, inodes: AbstractSet[int]) -> dict[int, int]:
    """Inode → descriptor, of those among the process's first few thousand."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    for name in _names(f"/proc/{tid}/fd"):
        if len(found) == len(links):
            break
        try:
            link = os.readlink(f"/proc/{tid}/fd/{name}")  # noqa: PTH115 - a single call each
        except OSError:
            continue
        if link in links:
            found[links[link]] = int(name)
    return found


def _names(directory: str) -> Iterable[str]:
    try:
        return os.listdir(directory)[:MAX_DESCRIPTORS]  # noqa: PTH208 - names only
    except OSError:
        return ()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - read in one piece
            return file.read()
    except OSError:
        return b""
