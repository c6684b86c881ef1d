"""Whether a thread that waits does so inside a name lookup, told from its snapshot.

Owns: which waits on which sockets, and which functions on the stack, prove that.
Must not know: when the lookup began, or how a snapshot is taken.

Proof is a socket to a DNS server that the thread waits for itself, a local socket of a name service, or a
frame of the resolver on its stack. A thread that serves an event loop is taken for one that waits for DNS
only when its loop watches no other socket: it may just as well wait for something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ebpfdns.observe.syscalls import EPOLL_WAITS

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["dns", "service", "stack"]

#: System calls that a resolver waits in; what a thread sits in otherwise is no lookup.
WAITS = EPOLL_WAITS | {
    *("poll", "ppoll", "select", "pselect6", "restart_syscall"),
    *("read", "readv", "recvfrom", "recvmsg", "recvmmsg", "connect"),
    *("write", "writev", "sendto", "sendmsg", "sendmmsg", "openat", "open", "flock", "fcntl"),
}
#: … and those that thousands of idle threads sit in: only the stack tells.
LOCKED = frozenset({"futex", "clock_nanosleep", "nanosleep"})
#: Sockets of local name services, by the path they are bound to.
SERVICE_PATHS = ("/nscd/", "/systemd/resolve/", "/avahi-daemon/", "/sss/pipes/")
#: Function on the stack → the API it is, when the program may have called that itself.
API_OF_FRAME = {
    name: name.removeprefix("__")
    for name in (
        *(
            "getaddrinfo",
            "getnameinfo",
            "gethostbyname",
            "gethostbyname2",
            "gethostbyname_r",
            "gethostbyname2_r",
        ),
        *("gethostbyaddr", "gethostbyaddr_r", "res_query", "res_search", "res_send"),
        *("res_nquery", "res_nsearch", "res_nsend", "__res_nquery", "__res_nsearch", "__res_nsend"),
    )
}


@dataclass(frozen=True, slots=True)
class ResolverWait:
    """A thread inside a lookup: by which proof, which descriptors, and the API if the stack shows it."""

    kind: Kind
    fds: tuple[int, ...] = ()
    api: str | None = None


def resolver_wait(facts: Mapping[str, Any], dns_ports: frozenset[int]) -> ResolverWait | None:
    """What a thread's snapshot proves; None when it is in no lookup, or nothing shows it."""
    if facts.get("syscall") not in WAITS | LOCKED:
        return None
    api = api_on(facts.get("stack") or ())
    sockets = facts.get("sockets") or []
    # A socket that is not connected belongs to a question whose servers lie beside it in memory.
    has_servers = bool((facts.get("asked") or {}).get("servers"))
    dns = tuple(
        socket["fd"] for socket in sockets if is_dns(socket, dns_ports) or (has_servers and is_free(socket))
    )
    is_alone = facts["syscall"] not in EPOLL_WAITS or len(dns) == len(sockets)
    if dns and is_alone:
        return ResolverWait("dns", dns, api)
    services = tuple(socket["fd"] for socket in sockets if is_service(socket))
    if services and is_alone:
        return ResolverWait("service", services, api)
    return ResolverWait("stack", tuple(socket["fd"] for socket in sockets), api) if api else None


def is_dns(socket: Mapping[str, Any], ports: frozenset[int]) -> bool:
    """Whether its other end is a DNS server."""
    remote = socket.get("remote") or (None, None)
    return socket.get("kind") in {"udp", "tcp"} and remote[1] in ports


def is_free(socket: Mapping[str, Any]) -> bool:
    """A UDP socket that is not connected."""
    return socket.get("kind") == "udp" and not socket.get("remote")


def is_service(socket: Mapping[str, Any]) -> bool:
    """Whether it leads to a local name service."""
    peer = socket.get("peer") or {}
    path = peer.get("path") or socket.get("path") or ""
    return socket.get("kind") == "unix" and any(part in path for part in SERVICE_PATHS)


def is_service_listed(unix_table: str) -> bool:
    """Whether any socket of a name service is in the text of /proc/PID/net/unix."""
    return any(part in unix_table for part in SERVICE_PATHS)


def api_on(stack: tuple[str, ...] | list[str]) -> str | None:
    """The outermost function of the resolver's API on a stack (innermost frame first)."""
    found = [API_OF_FRAME[name] for name in stack if name in API_OF_FRAME]
    return found[-1] if found else None
