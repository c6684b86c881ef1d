"""Situations for the tests of the diagnosis, in seconds since the lookup began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Connect, Lookup, Query, Server, Situation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.model.facts import StatusWord

S = 1_000_000_000
START_NS = 1000 * S
ONE, TWO, THREE = "192.0.2.53", "192.0.2.54", "192.0.2.55"
WEB = "192.0.2.10"
NAME = b"www.lab.test"
A, AAAA = 1, 28
EPERM, EACCES, EINVAL, ENETUNREACH, ETIMEDOUT, ECONNREFUSED, EHOSTUNREACH = 1, 13, 22, 101, 110, 111, 113

EAI_AGAIN: dict[str, Any] = {"status": "failed", "code": -3}

#: what it is called, what was seen, the id and the confidence
Row = tuple[str, Situation, str | None, str | None]


def verdict(seen: Situation) -> tuple[str | None, str | None]:
    """The id and the confidence."""
    cause = judge(seen)
    return (cause.id, cause.confidence) if cause else (None, None)


def rows(*table: Row) -> pytest.MarkDecorator:
    """One case for each row."""
    return pytest.mark.parametrize(("seen", "expected"), [pytest.param(r[1], r[2:], id=r[0]) for r in table])


def at(seconds: float) -> int:
    """This long after the lookup began."""
    return START_NS + round(seconds * S)


def ask(
    server: str = ONE,
    qtype: int = A,
    *,
    sent: float = 0.001,
    reply: float | None = None,
    resent: float | None = None,
    rcode: int | None = 0,
    **fields: Any,
) -> Query:
    """One question."""
    defaults: dict[str, Any] = {
        "name": NAME + b".",
        "id": 1000 + qtype,
        "socket": hash((server, "udp")) & 0xFFFF,
        "attempts": 1 if resent is None else 2,
        "rcode": None if reply is None else rcode,
        "transport": "udp",
    }
    return Query(
        server=Server(server, 53),
        sent_ns=at(sent),
        type=qtype,
        reply_ns=None if reply is None else at(reply),
        resent_ns=None if resent is None else at(resent),
        **{**defaults, **fields},
    )


def both(server: str = ONE, **fields: Any) -> list[Query]:
    """The questions for IPv4 and IPv6, alike."""
    return [ask(server, A, **fields), ask(server, AAAA, **fields)]


def failed(server: str = ONE, *, error: int | None, **fields: Any) -> Query:
    """A question that never left."""
    return Query(
        server=Server(server, 53),
        **{"transport": "udp", "sent_ns": at(0.001), "was_sent": False, "error": error, **fields},
    )


def conf(*nameservers: str, options: Iterable[str] = ()) -> dict[str, Any]:
    """A resolv.conf."""
    return {"nameservers": list(nameservers), "search": [], "options": list(options), "present": True}


def thread(*sockets: dict[str, Any], state: str = "S", syscall: str | None = "poll") -> dict[str, Any]:
    """A snapshot of the thread."""
    return {"state": state, "syscall": syscall, "sockets": list(sockets)}


def udp(server: str | None = ONE, *, rx: int = 0) -> dict[str, Any]:
    """A UDP socket as the snapshot tells it; without a server it is not connected."""
    state = "ESTABLISHED" if server else "UNCONNECTED"
    remote = [server, 53] if server else None
    return {
        "fd": 5,
        "kind": "udp",
        "state": state,
        "remote": remote,
        "rx_queue_bytes": rx,
        "tx_queue_bytes": 0,
    }


def tcp(
    server: str = ONE, *, state: str = "ESTABLISHED", rx: int = 0, tx: int = 0, retransmits: int = 0
) -> dict[str, Any]:
    """A TCP connection as the snapshot tells it."""
    queues = {"rx_queue_bytes": rx, "tx_queue_bytes": tx, "retransmits": retransmits}
    return {"fd": 6, "kind": "tcp", "state": state, "remote": [server, 53], **queues}


def situation(
    queries: Iterable[Query] = (), *, age: float = 1.0, status: StatusWord = "in_flight", **more: Any
) -> Situation:
    """A lookup of this age, or one that took so long; `more` are fields of the situation or the lookup."""
    of_situation = {key: more.pop(key) for key in list(more) if key in Situation.__dataclass_fields__}
    fields: dict[str, Any] = {
        "name": NAME,
        "api": "getaddrinfo",
        "pid": 10,
        "tid": 11,
        "host_pid": 10,
        **more,
    }
    if status != "in_flight":
        fields["end_ns"] = at(age)
    lookup = Lookup(key=7, start_ns=START_NS, status=status, queries=tuple(queries), **fields)
    defaults: dict[str, Any] = {
        "now_ns": at(age),
        "resolver": "glibc",
        "resolv_conf": conf(ONE),
        "thread": thread(udp()),
    }
    return Situation(lookup=lookup, **{**defaults, **of_situation})


def musl(queries: Iterable[Query] = (), **more: Any) -> Situation:
    """The same with musl, which asks by one socket that is not connected."""
    one_socket = [_on_one_socket(query) for query in queries]
    return situation(one_socket, **{"resolver": "musl", "thread": thread(udp(None)), **more})


def _on_one_socket(query: Query) -> Query:
    fields = {name: getattr(query, name) for name in Query.__dataclass_fields__}
    return Query(**{**fields, "socket": 77})


def connecting(
    *, age: float = 1.0, status: StatusWord = "in_flight", port: int = 443, **more: Any
) -> Situation:
    """A TCP connect of this age, to an address that a lookup gave."""
    of_situation = {key: more.pop(key) for key in list(more) if key in Situation.__dataclass_fields__}
    fields: dict[str, Any] = {
        "transport": "tcp",
        "tcp_state": "SYN_SENT",
        "retransmits": 0,
        "server": Server(WEB, port),
        "lookup_key": 7,
        "lookup_start_ns": START_NS - S,
        "lookup_name": NAME,
        **more,
    }
    if status != "in_flight":
        fields["end_ns"] = at(age)
    connect = Connect(key=9, start_ns=START_NS, pid=10, tid=11, host_pid=10, status=status, **fields)
    return Situation(**{"now_ns": at(age), "connect": connect, **of_situation})


def local_thread(path: str, **peer: Any) -> dict[str, Any]:
    """A thread that waits for a local socket at this path."""
    socket = {"fd": 5, "inode": 99, "kind": "unix", "state": "CONNECTED", "peer": {"path": path, **peer}}
    return thread(socket)
