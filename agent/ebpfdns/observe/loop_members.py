"""What an event loop waits for, and which of that is ready: seen from outside, without touching it.

Owns: the members of an epoll instance (fdinfo), of a poll (the target's memory) and of a select; readiness of
sockets, eventfds and timerfds. Must not know: who serves the loop, or how long it was away.

Not known is not ready: pipes, signals, watches of files, epoll instances inside, and sockets whose queue
/proc does not tell. With EPOLLET data may lie there on purpose: who tells of it must know that it is new.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ebpfdns.observe.memory import read_memory
from ebpfdns.observe.sockets import read_sockets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.unix_queues import UnixQueues

    Facts = dict[str, Any]

MAX_MEMBERS = 256
READABLE = 0x001 | 0x040  # EPOLLIN, EPOLLRDNORM; POLLIN and POLLRDNORM are the same
ALL_EVENTS = 0x3FFF  # what a pollfd may ask for
EDGE_TRIGGERED = 1 << 31
SELECT_BITS = 64
_POLLFD = struct.Struct("<iHH")
_WATCHED = re.compile(r"^tfd:\s*(\d+)\s+events:\s*([0-9a-f]+)", re.MULTILINE)
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_COUNTS = {
    "anon_inode:[eventfd]": re.compile(r"^eventfd-count:\s*([0-9a-f]+)", re.MULTILINE),
    "anon_inode:[timerfd]": re.compile(r"^ticks:\s*(\d+)", re.MULTILINE),
}
#: states of TCP in which a read returns at once, with nothing
_AT_THE_END = ("CLOSE_WAIT", "CLOSE")


class Member(NamedTuple):
    """A descriptor that the loop wants to read from."""

    fd: int
    is_edge_triggered: bool = False


def of_epoll(tid: int, epoll_fd: int) -> list[Member]:
    """The members of an epoll instance that are to be read from."""
    watched = _WATCHED.findall(_read(f"/proc/{tid}/fdinfo/{epoll_fd}"))
    events = {int(fd): int(bits, 16) for fd, bits in watched[:MAX_MEMBERS]}
    return [Member(fd, bool(bits & EDGE_TRIGGERED)) for fd, bits in sorted(events.items()) if bits & READABLE]


def of_poll(tid: int, address: int, count: int) -> list[Member]:
    """The entries of a poll as they stand in memory; none when that is no array of entries any more."""
    raw = read_memory(tid, address, min(count, MAX_MEMBERS) * _POLLFD.size)
    entries = list(_POLLFD.iter_unpack(raw[: len(raw) // _POLLFD.size * _POLLFD.size]))
    if any((events | got) & ~ALL_EVENTS or fd >= 1 << 20 for fd, events, got in entries):
        return []
    wanted = [fd for fd, events, _ in entries if fd >= 0 and events & READABLE]
    if not all(os.path.lexists(f"/proc/{tid}/fd/{fd}") for fd in wanted):
        return []
    return [Member(fd) for fd in wanted]


def of_select(bits: int) -> list[Member]:
    """The first 64 descriptors that a select was to read from."""
    return [Member(fd) for fd in range(SELECT_BITS) if bits >> fd & 1]


def ready(tid: int, members: Iterable[Member], unix_queues: UnixQueues) -> list[Facts]:
    """Those that are ready, with what is known of each."""
    links = {member: _link(tid, member.fd) for member in members}
    inodes = {member: int(match[1]) for member, link in links.items() if (match := _SOCKET.fullmatch(link))}
    sockets = read_sockets(tid, frozenset(inodes.values()))
    of_unix = {inode for inode, facts in sockets.items() if facts["kind"] == "unix"}
    for inode, unread in unix_queues.read(tid, of_unix).items():
        sockets[inode]["rx_queue_bytes"] = unread
    found: list[Facts] = []
    for member, link in links.items():
        if member in inodes:
            facts = sockets.get(inodes[member], {})
            if is_ready(facts):
                found.append({"fd": member.fd, "is_edge_triggered": member.is_edge_triggered, **facts})
        elif link in _COUNTS:
            match = _COUNTS[link].search(_read(f"/proc/{tid}/fdinfo/{member.fd}"))
            if match and int(match[1], 16):
                found.append({"fd": member.fd, "is_edge_triggered": False, "kind": link[12:-1]})
    return found


def is_ready(facts: Facts) -> bool:
    """Whether a read of this socket would return at once."""
    at_the_end = facts.get("kind") == "tcp" and facts.get("state") in _AT_THE_END
    return bool(facts.get("rx_queue_bytes") or facts.get("backlog") or at_the_end)


def _link(tid: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{tid}/fd/{fd}")  # noqa: PTH115 - a single call each
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - read in one piece
            return file.read().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
