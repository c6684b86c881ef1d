"""`event_loop_stall`: who did not come back, for how long, what waits for it, what its thread does instead.

Owns: the fields below `event_loop`, and the sentence of such a line.
Must not know: how readiness is found out, or when a line is due.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.publish.events import DNS_PORTS, NAME_SERVICES, seconds
from ebpfdns.publish.lines import milliseconds, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.correlate.items import Stall
    from ebpfdns.model.facts import Lookup, Query, Wait
    from ebpfdns.publish.events import Event

    Facts = dict[str, Any]

STATES = frozenset("RSDTtZXI")


def certain(stall: Stall, unread: Iterable[Lookup]) -> list[Facts]:
    """What is ready without doubt: with edge triggers data may lie there on purpose, unless it is new."""
    answered = {_name(query) for lookup in unread for query in lookup.queries if query.is_answered}
    return [facts for facts in stall.ready if not facts["is_edge_triggered"] or _own_name(facts) in answered]


def stall_event(
    stall: Stall, wait: Wait, unread: Iterable[Lookup], *, now_ns: int, wall_ns: int, update: int
) -> Event:
    """The `event_loop` object; `unread`: lookups whose answers the thread has left in its sockets."""
    answers = {_name(query): query for lookup in unread for query in lookup.queries if query.is_answered}
    return_ns = wait.loop_return_ns or now_ns
    return {
        "update": update,
        "kind": wait.loop,
        "fd": wait.last_loop_fd if wait.loop == "epoll" else None,
        "away_ms": milliseconds(now_ns - return_ns),
        "last_return": rfc3339(wall_ns - (now_ns - return_ns)),
        "ready": [_ready(facts, answers.get(_own_name(facts)), now_ns) for facts in stall.ready],
        "doing": {
            "state": stall.state if stall.state in STATES else None,
            "syscall": None if stall.syscall == "running" else stall.syscall,
            "throttled_ms": None if stall.throttled_ns is None else milliseconds(stall.throttled_ns),
        },
        "lookup": None,
    }


def held_up(stall: Stall, unread: Iterable[Lookup]) -> Lookup | None:
    """The lookup whose answer lies in one of the sockets that are ready: the oldest one."""
    ready = {_own_name(facts) for facts in stall.ready}
    found = [
        one for one in unread if any(_name(query) in ready for query in one.queries if query.is_answered)
    ]
    return min(found, key=lambda one: one.start_ns, default=None)


def message(found: Event, thread_name: bytes | None) -> str:
    """It is away, for so long, while this waits."""
    who = printable(thread_name) if thread_name else "a thread"
    what = "; the answer to a DNS question waits there" if found["lookup"] else _waiting(found["ready"])
    return f"{who} has not come back to its event loop for {seconds(round(found['away_ms'] * 1e6))}{what}"


def _waiting(ready: list[Event]) -> str:
    count = len(ready)
    return f"; fd {ready[0]['fd']} is ready" if count == 1 else f"; {count} descriptors are ready"


def _name(query: Query) -> str:
    return f"{query.transport}:{query.local_port}"


def _own_name(facts: Facts) -> str:
    local = facts.get("local")
    return f"{facts.get('kind')}:{local[1]}" if local else ""


def _ready(facts: Facts, answer: Query | None, now_ns: int) -> Event:
    """One descriptor that is ready; `answer`: the question whose answer came to it."""
    remote = facts.get("remote")
    address = {"address": remote[0], "port": remote[1]} if remote else None
    if address is None and answer is not None:
        address = {"address": answer.server.address, "port": answer.server.port}
    kind = facts.get("kind")
    is_socket = kind in ("udp", "tcp", "unix")
    ready_ns = max(facts["ready_ns"], now_ns - answer.reply_ns if answer and answer.reply_ns else 0)
    return {
        "fd": facts["fd"],
        "socket": {"server": address, "network": {"transport": kind}} if is_socket else None,
        "purpose": _purpose(facts, answer) if is_socket else None,
        "rx_queue_bytes": facts.get("rx_queue_bytes"),
        "ready_ms": milliseconds(ready_ns),
    }


def _purpose(facts: Facts, answer: Query | None) -> str | None:
    """What a socket is for, by its other end."""
    if answer is not None:
        return "dns"
    path = facts.get("path")
    if path is not None:
        return "nss" if any(part in path for part in NAME_SERVICES) else "application"
    remote = facts.get("remote")
    return DNS_PORTS.get(remote[1], "application") if remote else None
