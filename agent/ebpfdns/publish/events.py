"""Event lines as dicts, from facts: the shapes of the contract, section 4.

Owns: field names, and the sentences in `message`.
Must not know: JSON bytes, where lines go, how a cause is found.
Pure: times come in as arguments. Text from outside passes through `printable`, once, here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.model import dns_names
from ebpfdns.publish import errors
from ebpfdns.publish.lines import milliseconds, printable, printable_text, rfc3339

if TYPE_CHECKING:
    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Connect, Lookup, Query, Server, Wait

Event = dict[str, Any]

DNS_PORTS = {53: "dns", 853: "dot"}
NAME_SERVICES = ("/nscd/", "/systemd/resolve/", "/avahi-daemon/", "/sss/", "dbus/system_bus_socket")
SECOND_NS = 1_000_000_000
#: whose names are read from a DNS message
WIRE_APIS = frozenset({"wire", "res_send", "res_nsend"})


def base(kind: str, wall_ns: int, host: str, message: str) -> Event:
    """What every line begins with."""
    return {
        "v": 1,
        "ts": rfc3339(wall_ns),
        "event": kind,
        "message": shown(message),
        "host": {"name": host},
    }


def shown(text: str) -> str:
    """Text whose parts were escaped one by one stays as it is; what could harm a terminal does not."""
    return text if text.isprintable() else printable_text(text)


def from_wire(name: bytes) -> str:
    """A name that came in DNS wire form: its odd bytes are escaped already (RFC 1035, section 5.1)."""
    return name.decode("ascii", "backslashreplace")


def name_text(lookup: Lookup) -> str | None:
    """What was looked up, for people and machines alike."""
    if lookup.name is not None:
        text = from_wire(lookup.name) if lookup.api in WIRE_APIS else printable(lookup.name)
        return text.removesuffix(".") if lookup.is_wire and len(text) > 1 else text
    return lookup.address


def seconds(ns: int) -> str:
    """1.0 s, 12 ms: as people say it."""
    return f"{ns / SECOND_NS:.1f} s" if ns >= SECOND_NS // 10 else f"{ns / 1e6:.0f} ms"


def lookup_event(
    lookup: Lookup,
    *,
    identity: str,
    started_wall_ns: int,
    resolver: str,
    now_ns: int,
    update: int | None = None,
    waiting_on: Event | None = None,
    wait: Wait | None = None,
    lost_end: bool = False,
) -> Event:
    """The `lookup` object: in flight when `update` is given, else ended."""
    found: Event = {
        "id": identity,
        "name": name_text(lookup),
        "api": None if lookup.api == "none" else lookup.api,
        "resolver": resolver,
        "status": _status(lookup, lost_end=lost_end),
        "since": "before_attach" if lookup.before_attach else "attach",
        "started": None if lookup.before_attach else rfc3339(started_wall_ns),
    }
    if lookup.name_cut:
        found["name_cut"] = True
    if lookup.goroutine_id is not None:
        found["goroutine"] = {"id": lookup.goroutine_id}
    found |= age(lookup, now_ns, update, lost_end=lost_end)
    if update is None and not lost_end:
        if lookup.status == "failed":
            found["error"] = lookup_error(lookup)
        elif lookup.status == "ok" and lookup.addresses:
            found["addresses"] = list(lookup.addresses)
    found["service"] = printable(lookup.service) if lookup.service else None
    found["family"] = lookup.family
    found["queries"] = [query_event(query, lookup, is_over=update is None) for query in lookup.queries]
    found["more_queries"] = lookup.more_queries
    if update is not None:
        found["waiting_on"] = waiting_on
        loop = last_event_loop_return(wait, now_ns)
        if loop is not None:
            found["last_event_loop_return"] = loop
    return found


def age(thing: Lookup | Connect, now_ns: int, update: int | None, *, lost_end: bool) -> Event:
    """How long it has taken or took; of what began before tracing only how long at least."""
    found: Event = {} if update is None else {"update": update}
    field = "duration_ms" if update is None else "elapsed_ms"
    until_ns = now_ns if update is not None or thing.end_ns is None else thing.end_ns
    took_ms = milliseconds(until_ns - thing.start_ns)
    if thing.before_attach:
        found |= {field: None, "open_for_at_least_ms": took_ms}
    else:
        found[field] = None if lost_end else took_ms
    return found | {"lost_end": True} if lost_end else found


def _status(thing: Lookup | Connect, *, lost_end: bool) -> str | None:
    return None if lost_end or thing.status == "unseen" else thing.status


def lookup_error(lookup: Lookup) -> Event:
    """What the caller was told; of a wire lookup, what the packets told."""
    if lookup.is_of_go:
        return errors.go_error(lookup.go_error, name_text(lookup))
    if not lookup.is_wire:
        return errors.lookup_error(lookup.api, lookup.code)
    rcode = next((query.rcode for query in lookup.queries if query.rcode), None)
    if rcode is not None:
        return {"type": dns_names.rcode_name(rcode), "code": rcode, "message": "the server's answer"}
    text = "the program closed its socket before an answer came" if lookup.socket_closed else "no answer came"
    return {"type": "UNANSWERED", "code": None, "message": text}


def query_event(query: Query, lookup: Lookup, *, is_over: bool) -> Event:
    """A question, with times counted from the start of `lookup`."""

    def offset(ns: int | None) -> float | None:
        return None if ns is None else milliseconds(max(ns - lookup.start_ns, 0))

    return {
        "name": None if query.name is None else from_wire(query.name),
        "type": None if query.type is None else dns_names.type_name(query.type),
        "id": query.id,
        "server": server(query.server),
        "network": {"transport": query.transport},
        "encrypted": None,
        "attempt": None if lookup.before_attach else attempt_number(query, lookup),
        "sent_ms": offset(query.sent_ns) if query.sent_is_known else None,
        "resent_ms": offset(query.resent_ns),
        "reply_ms": offset(query.reply_ns),
        "rcode": None if query.rcode is None else dns_names.rcode_name(query.rcode),
        "truncated": query.truncated,
        "state": query_state(query, lookup, is_over=is_over),
        "error": None if query.error is None else errors.errno_name(query.error),
    }


def query_state(query: Query, lookup: Lookup, *, is_over: bool) -> str:
    """waiting, answered, timed_out or failed."""
    if query.is_answered:
        return "answered"
    if query.attempt == "ok" and not query.was_sent:  # what it sent was not seen: another port, another way
        return "answered"
    if query.attempt == "running":
        return "timed_out" if is_over else "waiting"
    if query.error is not None or not query.was_sent:
        return "failed"
    if query.attempt is not None:
        return "timed_out"
    is_left = any(
        other.sent_ns > query.sent_ns and other.type == query.type and other.socket != query.socket
        for other in lookup.queries
    )
    return "timed_out" if is_over or is_left else "waiting"


def attempt_number(query: Query, lookup: Lookup) -> int:
    """How often its question was asked, this time included; Go asks each time from another socket."""
    if query.attempt is None:
        return query.attempts
    before = [
        other.id
        for other in lookup.queries
        if (other.name, other.type, other.server) == (query.name, query.type, query.server)
        and other.sent_ns < query.sent_ns
    ]
    return 1 + sum(other != query.id or other is None for other in before)  # with the same id, by TCP


def server(found: Server | None) -> Event | None:
    """`server`: {address, port}."""
    return None if found is None else {"address": found.address, "port": found.port}


def waiting_on(thread: dict[str, Any] | None, wait: Wait | None, now_ns: int) -> Event | None:
    """What the thread sits in: from its snapshot, and since when from the kernel's own record of the wait."""
    syscall = (thread or {}).get("syscall") or (wait.syscall if wait else None)
    if syscall in (None, "running"):
        return None
    asleep_ns = (thread or {}).get("asleep_ns")
    since_ns = None if asleep_ns is None else now_ns - asleep_ns
    if wait and wait.syscall == syscall and wait.since_ns is not None:
        since_ns = wait.since_ns
    sockets = (thread or {}).get("sockets") or []
    return {
        "syscall": syscall,
        "since_ms": None if since_ns is None else milliseconds(max(now_ns - since_ns, 0)),
        "socket": _waited_socket(sockets[0]) if len(sockets) == 1 else None,
    }


def last_event_loop_return(wait: Wait | None, now_ns: int) -> Event | None:
    """When the thread last came back to its event loop's epoll instance, and which one that is."""
    if wait is None or wait.last_loop_ns is None:
        return None
    away_ms = milliseconds(max(now_ns - wait.last_loop_ns, 0))
    return {"kind": wait.last_loop, "fd": wait.last_loop_fd, "ago_ms": away_ms}


def _waited_socket(facts: dict[str, Any]) -> Event:
    remote = facts.get("remote")
    return {
        "fd": facts["fd"],
        "server": {"address": remote[0], "port": remote[1]} if remote else None,
        "rx_queue_bytes": facts.get("rx_queue_bytes"),
    }


def connect_event(
    connect: Connect,
    *,
    identity: str,
    lookup_id: str | None,
    now_ns: int,
    update: int | None = None,
    lost_end: bool = False,
) -> Event:
    """The `connect` object: in flight when `update` is given, else ended."""
    found: Event = {
        "id": identity,
        "status": _status(connect, lost_end=lost_end),
        "server": server(connect.server),
        "network": {"transport": connect.transport, "type": connect.family},
        "purpose": purpose(connect),
    }
    if connect.is_tls:
        found["phase"] = "tls"
    if connect.family == "unix":
        found["path"] = _path(connect)
    if connect.before_attach:
        found["since"] = "before_attach"
    found |= age(connect, now_ns, update, lost_end=lost_end)
    if update is None and not lost_end and connect.status == "failed":
        found["error"] = errors.connect_error(connect.error)
    has_lookup = connect.lookup_name is not None and lookup_id is not None
    found["lookup"] = {"id": lookup_id, "name": printable(connect.lookup_name or b"")} if has_lookup else None
    has_tcp = connect.transport == "tcp" and connect.tcp_state is not None
    found["tcp"] = {"state": connect.tcp_state, "retransmits": connect.retransmits} if has_tcp else None
    return found


def _path(connect: Connect) -> str | None:
    """A path; an abstract name is written with @ for its leading NUL, as ss does."""
    if connect.path is None:
        return None
    if connect.path.startswith(b"\0"):
        return "@" + printable(connect.path[1:])
    return printable(connect.path)


def purpose(connect: Connect) -> str:
    """What a connect is for, by port and path."""
    if connect.family == "unix":
        path = (connect.path or b"").decode("utf-8", "replace")
        return "nss" if any(part in path for part in NAME_SERVICES) else "application"
    return DNS_PORTS.get(connect.server.port if connect.server else 0, "application")


def connect_target(connect: Connect) -> str:
    """Where it goes, for people."""
    return connect.server.text if connect.server else _path(connect) or "an unnamed socket"


def cause_event(cause: Cause) -> Event:
    """The `cause` object."""
    return {
        "id": cause.id,
        "confidence": cause.confidence,
        "summary": shown(cause.summary),
        "evidence": [
            {"fact": one.fact, "text": shown(one.text)}
            | {key: shown(value) if isinstance(value, str) else value for key, value in one.numbers.items()}
            for one in cause.evidence
        ],
        "remedy": shown(cause.remedy),
    }


def histogram(row: list[int], shift: int) -> Event:
    """Cumulative buckets [le in ms, count], the sum in ms, the count. `row`: sum_ns, then the counts."""
    total_ns, counts = row[0], row[1:]
    buckets: list[list[float]] = []
    below = 0
    for number, count in enumerate(counts[:-1]):
        below += count
        if count:
            buckets.append([milliseconds(1 << (number + shift)), below])
    return {"buckets": buckets, "sum": milliseconds(total_ns), "count": sum(counts)}
