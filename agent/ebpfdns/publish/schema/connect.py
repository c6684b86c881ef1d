"""The schema of a connect: a connection being made, by the program or by a daemon behind it.

Owns: every field below `connect`, and below `chain[].connects[]`.
Must not know: lookups (beyond a link to one), causes, the agent.
"""

from __future__ import annotations

from ebpfdns.publish.schema.participants import (
    FAMILIES,
    PURPOSES,
    STATUS_ENDED,
    STATUS_IN_FLIGHT,
    age_known,
    end_known,
    least_age,
    lookup_link,
    lost_end,
    server,
    transport,
)
from ebpfdns.publish.schema.terms import Schema, choice, constant, count, measure, or_null, record, text, when


def in_flight() -> Schema:
    """A connect that has not ended."""
    required = {
        **_always(STATUS_IN_FLIGHT),
        "update": count("1 in the first line about this connect, then 2, 3 …", at_least=1),
        "elapsed_ms": or_null(measure("Its age when the line was made; null with `before_attach`.")),
    }
    may = {"path": _path(), "phase": _phase(), **_earlier()}
    return record("A connect in flight.", required, may) | {"allOf": [*_unix_has_a_path(), age_known()]}


def ended() -> Schema:
    """A connect that has ended."""
    always = _always(STATUS_ENDED)
    required = {
        **always,
        "status": or_null(always["status"]),
        "duration_ms": or_null(measure("From start to end; null when one of them was not seen.")),
    }
    may = {"error": _error(), "path": _path(), "phase": _phase(), "lost_end": lost_end(), **_earlier()}
    rules = [
        when({"status": "failed"}, needs=["error"]),
        when({"status": "ok"}, bars=["error"]),
        when({"status": "abandoned"}, bars=["error"]),
        when({"status": None}, bars=["error"]),
        *end_known(),
        *_unix_has_a_path(),
    ]
    return record("A connect that ended, or whose end was lost.", required, may) | {"allOf": rules}


def of_hop() -> Schema:
    """A connect of a process further down the chain, seen from outside."""
    always = _always(STATUS_IN_FLIGHT | STATUS_ENDED)
    required = {name: always[name] for name in ("server", "network", "purpose", "status")}
    may = {
        "id": always["id"],
        "elapsed_ms": or_null(measure("Its age while in flight; null when its start was not seen.")),
        "duration_ms": or_null(measure("From start to end, once ended.")),
        "error": _error(),
        "lookup": always["lookup"],
        "tcp": or_null(_tcp_of_hop()),
        "phase": _phase(),
        "path": _path(),
    }
    return record("A connection that the process at this hop makes or has.", required, may)


def _tcp_of_hop() -> Schema:
    """Of a connection that is looked at from outside it is told, too, how much went each way."""
    tcp = _tcp()
    may = {
        "bytes_sent": or_null(count("Bytes sent on it; null: this kernel does not say.")),
        "bytes_received": or_null(count("Bytes that came.")),
        "sent_ago_ms": or_null(measure("When data was sent last; null: never.")),
        "received_ago_ms": or_null(measure("When data came last; null: never.")),
    }
    return tcp | {"properties": tcp["properties"] | may}


def _tcp() -> Schema:
    return record(
        "The TCP connection as the kernel sees it; null when it is not TCP or was not observed.",
        {
            "state": text("The kernel's name of the state.", pattern="^[A-Z0-9_]+$", examples=["SYN_SENT"]),
            "retransmits": or_null(count("How often the last segment was sent again without an answer.")),
        },
    )


def _always(statuses: dict[str, str]) -> dict[str, Schema]:
    network = record(
        "The way it takes.",
        {"transport": transport(), "type": choice("Address family.", FAMILIES)},
    )
    return {
        "id": text("The same in every line about this connect.", examples=["4242-c3"]),
        "status": choice("How it stands.", statuses),
        "server": or_null(server()) | {"description": "The other end; null on a local socket (see `path`)."},
        "network": network,
        "purpose": choice("What it is for, by port and path.", PURPOSES),
        "lookup": or_null(lookup_link("The lookup that gave this address; null when none is known.")),
        "tcp": or_null(_tcp()),
    }


def _phase() -> Schema:
    return constant(
        "tls",
        "The TCP connection is up, and the line is about the TLS handshake on it: from its first message "
        "to the first answer. Absent while the connection itself is made.",
    )


def _earlier() -> dict[str, Schema]:
    since = constant("before_attach", "It was already in flight when tracing began; absent otherwise.")
    return {"since": since, "open_for_at_least_ms": least_age()}


def _path() -> Schema:
    return or_null(text("The path of a local socket; null when it has none. Absent on other transports."))


def _error() -> Schema:
    return record(
        "Why it failed; with `failed` only.",
        {"type": text("The error's own name.", pattern="^E[A-Z0-9]+$", examples=["ECONNREFUSED"])},
    )


def _unix_has_a_path() -> list[Schema]:
    """A path is there exactly when the transport is a local socket."""
    is_unix = {
        "properties": {
            "network": {"properties": {"transport": {"const": "unix"}}, "required": ["transport"]}
        },
        "required": ["network"],
    }
    return [{"if": is_unix, "then": {"required": ["path"]}, "else": {"properties": {"path": False}}}]
