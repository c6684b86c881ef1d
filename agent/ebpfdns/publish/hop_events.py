"""The `chain` of a lookup's line: each hop with its own questions and connections.

Owns: the shape of a hop. Must not know: how hops are found, causes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfdns.model.facts import Lookup
from ebpfdns.publish import events
from ebpfdns.publish.lines import milliseconds, printable_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ebpfdns.model.facts import Connect, Hop, HopConnect
    from ebpfdns.publish.events import Event


def chain_event(
    chain: Sequence[Hop],
    thing: Lookup | Connect,
    process_of: Callable[[int], Event | None],
    now_ns: int,
    *,
    is_over: bool,
) -> list[Event]:
    """The hops in order. `is_over`: the lookup has ended, and this is how they were last seen."""
    if not isinstance(thing, Lookup):
        return []
    return [_hop(hop, thing, process_of(hop.pid), now_ns, is_over=is_over) for hop in chain]


def _hop(hop: Hop, lookup: Lookup, process: Event | None, now_ns: int, *, is_over: bool) -> Event:
    name = None if hop.name is None else printable_text(hop.name)
    unknown = {"pid": hop.pid, "executable": {"name": name, "path": None}, "start_time": None}
    # Of a lookup that has ended what its daemon was told says more than nothing.
    queries = hop.queries or (hop.past if is_over and hop.is_joined else ())
    as_if_its_own = replace(lookup, queries=queries, before_attach=False)
    return {
        "role": hop.role,
        "process": process or unknown,
        "state": _state(hop, is_over=is_over),
        "asked_at": printable_text(hop.asked_at),
        "joined": hop.is_joined,
        "queries": [events.query_event(query, as_if_its_own, is_over=is_over) for query in queries],
        "more_waiting": hop.others_open if hop.is_joined else max(hop.others_open - len(hop.queries), 0),
        "connects": [_connect(one, now_ns) for one in hop.connects],
    }


def _state(hop: Hop, *, is_over: bool) -> str:
    """In one word what it does, or was last seen to do."""
    if hop.is_stopped:
        return "stopped"
    if is_over:
        return "seen_before"
    waits_for_connection = any(
        not one.is_up or one.hello_ns is not None or one.is_silent for one in hop.connects
    )
    return "waiting" if hop.queries or waits_for_connection else "idle"


def _connect(connect: HopConnect, now_ns: int) -> Event:
    begun_ns = connect.begun_ns if connect.hello_ns is None else connect.hello_ns
    is_open = not connect.is_up or connect.hello_ns is not None
    found: Event = {
        "server": events.server(connect.server),
        "network": {"transport": "tcp", "type": "ipv6" if ":" in connect.server.address else "ipv4"},
        "purpose": events.DNS_PORTS.get(connect.server.port, "application"),
        "status": "in_flight" if is_open else "ok",
    }
    if is_open:
        found["elapsed_ms"] = None if begun_ns is None else milliseconds(max(now_ns - begun_ns, 0))
    if connect.hello_ns is not None:
        found["phase"] = "tls"
    found["tcp"] = None
    if connect.state is not None:
        found["tcp"] = {
            "state": connect.state,
            "retransmits": connect.retransmits,
            "bytes_sent": connect.bytes_sent,
            "bytes_received": connect.bytes_received,
            "sent_ago_ms": _ms(connect.sent_ago_ns),
            "received_ago_ms": _ms(connect.received_ago_ns),
        }
    return found


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else milliseconds(duration_ns)
