"""Links, addresses, neighbours and routes of a network namespace, and its unix sockets.

Owns: the project's only import of pyroute2, made on first use, so that importing this module is cheap.
Must not know: why a network is built (that is the lab's business), nor anything about DNS.

A netlink socket belongs to the namespace it was created in, and a thread may be in a namespace of its own. So
all work is done in a thread that enters the namespace and ends there: the caller never moves.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import importlib
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ebpfdns.errors import EbpfdnsError, HostCannotTraceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Result = TypeVar("Result")
RouteKind = Literal["unicast", "unreachable", "blackhole", "prohibit"]

CLONE_NEWNET = 0x40000000
NUD_PERMANENT = 0x80
#: linux/rtnetlink.h
ROUTE_KINDS = {1: "unicast", 2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
AF_UNIX, TCP_LISTEN = 1, 10
UDIAG_SHOW = 1 | 2 | 4 | 8 | 16  # name, vfs, peer, icons (who waits to be accepted), rqlen: linux/unix_diag.h
IFA_F_NODAD = 0x02  # an IPv6 address is usable at once, without asking the link whether it is taken

REMEDIES = {
    errno.EPERM: "sudo ebpfdns …, or give the container CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EOPNOTSUPP: "modprobe veth",
    errno.EAFNOSUPPORT: "boot without ipv6.disable=1",
}


class Network:
    """One namespace's network, open for changes: thin verbs over pyroute2, with our errors."""

    def __init__(self, netlink_socket: Any) -> None:  # noqa: ANN401 - pyroute2 has no types
        self._ip = netlink_socket

    def set_up(self, link: str) -> None:
        """`ip link set LINK up`."""
        with _explained(f"bring {link} up"):
            self._ip.link("set", index=self._index(link), state="up")

    def add_address(self, link: str, address: str) -> None:
        """`ip addr add ADDRESS/LEN dev LINK`, IPv4 or IPv6."""
        host, _, prefix_bits = address.partition("/")
        flags: dict[str, int] = {"flags": IFA_F_NODAD} if ":" in host else {}
        prefix = int(prefix_bits or (128 if ":" in host else 32))
        with _explained(f"add address {address} to {link}"):
            self._ip.addr("add", index=self._index(link), address=host, prefixlen=prefix, **flags)

    def add_veth(self, link: str, peer: str) -> None:
        """`ip link add LINK type veth peer name PEER`: both ends in this namespace, both down."""
        with _explained(f"create veth pair {link}, {peer}"):
            self._ip.link("add", ifname=link, kind="veth", peer={"ifname": peer})

    def add_neighbour(self, link: str, address: str, mac: str) -> None:
        """`ip neigh add ADDRESS lladdr MAC dev LINK nud permanent`: no ARP is ever asked."""
        with _explained(f"add neighbour {address} to {link}"):
            self._ip.neigh("replace", dst=address, lladdr=mac, ifindex=self._index(link), state=NUD_PERMANENT)

    def add_route(self, destination: str, *, link: str | None = None, kind: RouteKind = "unicast") -> None:
        """`ip route add [unreachable|blackhole|prohibit] DESTINATION [dev LINK]`."""
        route: dict[str, Any] = {"dst": destination, "type": kind}
        if link is not None:
            route["oif"] = self._index(link)
        with _explained(f"add {kind} route to {destination}"):
            self._ip.route("add", **route)

    def _index(self, link: str) -> int:
        """The index of the link with this name."""
        found = self._ip.link_lookup(ifname=link)
        if not found:
            raise EbpfdnsError(f"there is no network link {link!r} here", remedy="ip link")
        return int(found[0])


def is_loaded() -> bool:
    """Whether pyroute2 is there already: what needs it costs 0.1 to 0.3 s more otherwise."""
    module = sys.modules.get("pyroute2")
    return module is not None and not getattr(module.__spec__, "_initializing", False)


@functools.cache
def load_beside() -> threading.Thread:
    """Load pyroute2, once, in a thread of its own: what has to be said now is not said later."""
    loading = threading.Thread(target=_load, name="ebpfdns-netlink", daemon=True)
    loading.start()
    return loading


def _load() -> None:
    with contextlib.suppress(ImportError):
        importlib.import_module("pyroute2")


def unix_sockets(netns_fd: int) -> list[dict[str, Any]]:
    """The unix sockets of a network namespace: inode, path, is_listening, peer, receive_queue, waiting.

    `receive_queue`: bytes, of one that listens connections; `waiting`: inodes of those that are not accepted
    yet. A path that begins with @ is an abstract name. sock_diag(7); HostCannotTraceError without pyroute2.
    """
    return in_netns(netns_fd, _unix_sockets)


def _unix_sockets() -> list[dict[str, Any]]:
    try:
        from pyroute2.netlink.diag import DiagSocket  # noqa: PLC0415 - 0.1 s, only once something waits
    except ImportError as error:
        raise HostCannotTraceError(f"the Python package pyroute2 is missing ({error})") from error
    with DiagSocket() as diagnosis:
        diagnosis.bind()
        return [_unix_socket(told) for told in diagnosis.get_sock_stats(family=AF_UNIX, show=UDIAG_SHOW)]


def _unix_socket(told: Any) -> dict[str, Any]:  # noqa: ANN401 - pyroute2 has no types
    name = told.get_attr("UNIX_DIAG_NAME")
    waiting = bytes.fromhex((told.get_attr("UNIX_DIAG_ICONS") or "").replace(":", ""))
    is_abstract = name is not None and told.get_attr("UNIX_DIAG_VFS") is None
    return {
        "inode": told["udiag_ino"],
        "path": f"@{name}" if is_abstract else name,
        "is_listening": told["udiag_state"] == TCP_LISTEN,
        "peer": told.get_attr("UNIX_DIAG_PEER") or None,
        "receive_queue": (told.get_attr("UNIX_DIAG_RQLEN") or {}).get("udiag_rqueue"),
        "waiting": [inode for (inode,) in struct.iter_unpack("=I", waiting)],
    }


def routes_to(netns_fd: int, addresses: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Address → {kind, device, gateway, error} of the route from that namespace; `error`: an errno."""

    def work() -> dict[str, dict[str, Any]]:
        with _netlink_socket() as netlink_socket:
            return {address: _route_to(netlink_socket, address) for address in addresses}

    return in_netns(netns_fd, work)


def _route_to(netlink_socket: Any, address: str) -> dict[str, Any]:  # noqa: ANN401 - pyroute2 has no types
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - the socket has paid for it

    nothing: dict[str, Any] = {"kind": None, "device": None, "gateway": None, "error": None}
    try:
        (found, *_) = netlink_socket.route("get", dst=address.partition("%")[0])
    except NetlinkError as error:
        return nothing | {"error": abs(int(error.code))}
    except ValueError:  # no route came back, or the address is none
        return nothing
    links = netlink_socket.get_links(found.get_attr("RTA_OIF")) if found.get_attr("RTA_OIF") else []
    return {
        "kind": ROUTE_KINDS.get(found["type"]),
        "device": links[0].get_attr("IFLA_IFNAME") if links else None,
        "gateway": found.get_attr("RTA_GATEWAY"),
        "error": None,
    }


def configure(netns_fd: int, change: Callable[[Network], Result]) -> Result:
    """Let `change` work on the network of the namespace that `netns_fd` refers to."""

    def work() -> Result:
        with _netlink_socket() as netlink_socket:
            return change(Network(netlink_socket))

    return in_netns(netns_fd, work)


def in_netns(netns_fd: int, work: Callable[[], Result]) -> Result:
    """Run `work` in a thread inside the network namespace of `netns_fd`; sockets it makes belong there."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _setns(netns_fd)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread, below
            failures.append(error)

    thread = threading.Thread(target=body, name="ebpfdns-netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _setns(netns_fd: int) -> None:
    """Move the calling thread into the network namespace of `netns_fd`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(netns_fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise HostCannotTraceError(
            f"cannot enter the network namespace: {os.strerror(code)}",
            remedy=REMEDIES.get(code),
        )


@contextlib.contextmanager
def _netlink_socket() -> Iterator[Any]:
    """Open a pyroute2 socket in the calling thread's namespace; close it afterwards."""
    try:
        from pyroute2 import IPRoute  # noqa: PLC0415 - 0.1 s that only those who build networks should pay
    except ImportError as error:
        raise HostCannotTraceError(
            f"the Python package pyroute2 is missing ({error})",
            remedy="pip install pyroute2, or apt-get install python3-pyroute2",
        ) from error
    netlink_socket = IPRoute()
    try:
        yield netlink_socket
    finally:
        netlink_socket.close()


@contextlib.contextmanager
def _explained(attempt: str) -> Iterator[None]:
    """Turn pyroute2's error into ours: what was tried, what the kernel said, what to do about it."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415 - as above

    try:
        yield
    except NetlinkError as error:
        code = abs(int(error.code))
        kind = HostCannotTraceError if code in REMEDIES else EbpfdnsError
        raise kind(f"cannot {attempt}: {os.strerror(code)}", remedy=REMEDIES.get(code)) from error
