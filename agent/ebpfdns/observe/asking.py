"""Questions that are really sent, from the network of a process: for `inspect --name` only.

Owns: sending them with dnspython, in the network namespace of the process, and what came of each.
Must not know: which ways there are (`explain.ways`), or what the answers mean together.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.explain import ways
from ebpfdns.observe import name_files
from ebpfdns.observe.resolv_conf import parse_resolv_conf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import dns.message

    from ebpfdns.explain.ways import Way

MAX_AT_ONCE = 32
EDNS_BYTES = 1232  # what Go's resolver says, net/dnsclient_unix.go
NXDOMAIN, NOERROR = "NXDOMAIN", "NOERROR"
TYPES = ("A", "AAAA")
UPLINKS = "/run/systemd/resolve/resolv.conf"
LOOPBACK = ("127.", "::1")

Facts = dict[str, Any]


def ask_all_ways(
    pid: int, name: str, conf: Mapping[str, Any], servers: Sequence[str], timeout_s: float
) -> Facts:
    """{name, answers}: what each way brings; `servers` are those of the command line."""
    behind = [*servers, *_uplinks(pid, conf)]
    return {"name": name, "answers": ask(pid, ways.ways(name, conf, behind), timeout_s)}


def _uplinks(pid: int, conf: Mapping[str, Any]) -> list[str]:
    """The servers of systemd-resolved, which may be outside, where a stub on loopback is asked."""
    if not any(server.startswith(LOOPBACK) for server in conf.get("nameservers") or ()):
        return []
    for root in (f"/proc/{pid}/root", ""):
        text = name_files.read_text(root, UPLINKS)
        if text:
            return parse_resolv_conf(text.encode())["nameservers"]
    return []


def ask(pid: int, wanted: Sequence[Way], timeout_s: float) -> list[Facts]:
    """Try all ways at once; each waits `timeout_s` for one answer.

    PermissionError, HostCannotTraceError: the network namespace may not be entered.
    """
    netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ThreadPoolExecutor(max_workers=MAX_AT_ONCE) as pool:
            return list(
                pool.map(lambda way: netlink.in_netns(netns_fd, lambda: _try(way, timeout_s)), wanted)
            )
    finally:
        os.close(netns_fd)


def _try(way: Way, timeout_s: float) -> Facts:
    """Walk through names and servers as a resolver does, and tell how it ended."""
    begun_ns = time.monotonic_ns()
    found: Facts = {}
    for name in way.names:
        for server in way.servers:
            found = _ask_types(way, server, name, timeout_s) | {"server": server, "name": name}
            if found["outcome"] in {"answered", "no_such_name", "no_address"}:
                break
        if found["outcome"] != "no_such_name" and found["outcome"] != "no_address":
            break
    took_ms = round((time.monotonic_ns() - begun_ns) / 1e6, 3)
    told = {"role": way.role, "rules": way.rules, "transport": way.transport, "edns": way.has_edns}
    return told | {"port": way.port, "took_ms": took_ms} | found


def _ask_types(way: Way, server: str, name: str, timeout_s: float) -> Facts:
    """IPv4 addresses, and IPv6 ones of a name that has no others."""
    found: Facts = {}
    for kind in TYPES:
        found = _ask(way, server, name, kind, timeout_s)
        if found["outcome"] != "no_address":
            break
    return found


def _ask(way: Way, server: str, name: str, kind: str, timeout_s: float) -> Facts:
    import dns.exception  # noqa: PLC0415 - 30 ms that only those pay who ask
    import dns.message  # noqa: PLC0415
    import dns.query  # noqa: PLC0415

    found: Facts = {"rcode": None, "addresses": [], "truncated": None, "error": None}
    edns = {"use_edns": 0, "payload": EDNS_BYTES} if way.has_edns else {"use_edns": False}
    try:
        query = dns.message.make_query(name, kind, **edns)
        if way.transport == "udp":
            with _connected(server, way.port) as place:
                reply = dns.query.udp(query, server, timeout_s, way.port, sock=place, ignore_unexpected=True)
        elif way.transport == "tcp":
            reply = dns.query.tcp(query, server, timeout_s, way.port)
        else:
            reply = dns.query.tls(query, server, timeout_s, way.port, verify=False)
    except dns.exception.Timeout:
        return found | {"outcome": "timed_out"}
    except ssl.SSLError as error:
        return found | {"outcome": "tls_failed", "error": error.reason or str(error)}
    except OSError as error:
        return found | {"outcome": _refusal(error), "error": error.strerror or str(error)}
    except (dns.exception.DNSException, EOFError, ValueError) as error:
        return found | {"outcome": "failed", "error": str(error) or type(error).__name__}
    return found | _told(reply)


def _connected(server: str, port: int) -> socket.socket:
    """Connected, so that the kernel tells when nobody listens there."""
    place = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        place.settimeout(0)
        place.connect((server, port))
    except OSError:
        place.close()
        raise
    return place


def _refusal(error: OSError) -> str:
    if error.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
        return "refused"
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.EINVAL):
        return "unreachable"
    return "timed_out" if error.errno == errno.ETIMEDOUT else "failed"


def _told(reply: dns.message.Message) -> Facts:
    """What the answer says."""
    import dns.flags  # noqa: PLC0415
    import dns.rcode  # noqa: PLC0415
    import dns.rdatatype  # noqa: PLC0415

    rcode = dns.rcode.to_text(reply.rcode())
    wanted = (dns.rdatatype.A, dns.rdatatype.AAAA)
    addresses = sorted(record.to_text() for part in reply.answer if part.rdtype in wanted for record in part)
    if addresses:
        outcome = "answered"
    elif rcode == NXDOMAIN:
        outcome = "no_such_name"
    else:
        outcome = "no_address" if rcode == NOERROR else "error_code"
    return {
        "outcome": outcome,
        "rcode": rcode,
        "addresses": addresses,
        "truncated": bool(reply.flags & dns.flags.TC),
    }
