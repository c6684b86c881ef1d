"""The schema of a lookup: the call, its questions, and what its thread sits in.

Owns: every field below `lookup`.
Must not know: connects, causes, the agent.
"""

from __future__ import annotations

from ebpfdns.publish.schema.participants import (
    GO_RESOLVERS,
    STATUS_ENDED,
    STATUS_IN_FLIGHT,
    age_known,
    end_known,
    least_age,
    lost_end,
    server,
    timestamp,
    transport,
)
from ebpfdns.publish.schema.terms import (
    Schema,
    choice,
    constant,
    count,
    flag,
    items,
    measure,
    or_null,
    record,
    ref,
    text,
    when,
)

ID_MAX = 0xFFFF
START = "`lookup.started` (with `before_attach`: from when on it is known to have been in flight)"

SINCE = {
    "attach": "seen from its start.",
    "before_attach": "already in flight when tracing began, and found by a look at its thread.",
}
QUERY_STATES = {
    "waiting": "no answer yet.",
    "answered": "an answer was read.",
    "timed_out": "the resolver gave this attempt up.",
    "failed": "sending it failed, or the socket reported an error.",
}
ADDRESS_FAMILIES = {
    "inet": "IPv4 only.",
    "inet6": "IPv6 only.",
    "unspec": "both.",
}


def in_flight() -> Schema:
    """A lookup that has not ended."""
    required = {
        **_always(STATUS_IN_FLIGHT),
        "update": count("1 in the first line about this lookup, then 2, 3 …", at_least=1),
        "elapsed_ms": or_null(measure("Its age when the line was made; null with `before_attach`.")),
        "waiting_on": or_null(ref("waiting_on", _WAITING)),
    }
    may = {
        **_sometimes(),
        "last_event_loop_return": record(
            "When its thread last came back from an epoll instance; absent when it never did.",
            {
                "kind": text("The system call.", examples=["epoll_wait"]),
                "fd": count("The epoll instance's file descriptor."),
                "ago_ms": measure("How long ago."),
            },
        ),
    }
    return record("A lookup in flight.", required, may) | {"allOf": [age_known()]}


def ended() -> Schema:
    """A lookup that has ended, or whose end was lost."""
    always = _always(STATUS_ENDED)
    required = {
        **always,
        "status": or_null(always["status"]),
        "duration_ms": or_null(measure("From start to end; null when one of them was not seen.")),
    }
    may = {
        **_sometimes(),
        "error": _error(),
        "addresses": items(
            "The addresses it gave; only with `ok`, absent when they were not read.",
            text("An IP address."),
        ),
        "lost_end": lost_end(),
    }
    rules = [
        when({"status": "failed"}, needs=["error"], bars=["addresses"]),
        when({"status": "ok"}, bars=["error"]),
        when({"status": "abandoned"}, bars=["error", "addresses"]),
        when({"status": None}, bars=["error", "addresses"]),
        *end_known(),
    ]
    return record("A lookup that ended.", required, may) | {"allOf": rules}


_WAITING = "What the thread sits in; null when it could not be looked at, or sits in nothing."


def _always(statuses: dict[str, str]) -> dict[str, Schema]:
    return {
        "id": text("The same in every line about this lookup.", examples=["4242-17"]),
        "name": or_null(
            text("The name as the program asked for it, escaped; null when it could not be read.")
        ),
        "api": or_null(
            text(
                "The call it came by; `wire`: no known call, the question was seen; `uv_getaddrinfo`: it "
                "is in the queue of libuv's thread pool; null: not observed.",
                pattern="^[a-z][a-z0-9_]*$",
                examples=["getaddrinfo", "gethostbyname", "res_query", "go", "cgo", "resolve1", "wire"],
            )
        ),
        "resolver": text(
            "Whose code resolves; `unknown` where that is not known.",
            pattern="^[a-z][a-z0-9_.-]*$",
            examples=["glibc", "musl", "go", "systemd-resolved", "unknown"],
        ),
        "status": choice("How it stands.", statuses),
        "since": choice("From when on it was seen.", SINCE),
        "started": or_null(timestamp("When it started; null with `before_attach`.")),
        "queries": items(
            "The DNS questions of this lookup, in the order they were first sent; at most 8.",
            ref("query", "A question."),
        ),
    }


def _sometimes() -> dict[str, Schema]:
    return {
        "open_for_at_least_ms": least_age(),
        "name_cut": constant(
            value=True, description="The name was longer than is kept; absent when it is whole."
        ),
        "service": or_null(text("The service or port that was asked for with the name.")),
        "family": or_null(choice("Which addresses were asked for.", ADDRESS_FAMILIES)),
        "more_queries": count("Questions beyond the 8 kept in `queries`."),
        "goroutine": record(
            "The goroutine, where the caller is Go.",
            {"id": or_null(count("Its id, as in a Go stack trace."))},
        ),
        "go_resolver": record(
            "Which of its two resolvers Go takes for this name; only where the caller is Go.",
            {
                "choice": or_null(choice("The one; null when what decides was not seen.", GO_RESOLVERS)),
                "why": items("What decided: build, environment, files, the name.", text("A sentence.")),
            },
        ),
    }


def _error() -> Schema:
    return record(
        "What the caller was told; with `failed` only.",
        {
            "type": text(
                "The error's own name; of Go's resolver a word for what its net.DNSError says.",
                examples=[
                    *("EAI_AGAIN", "NXDOMAIN"),
                    *("no_such_host", "io_timeout", "deadline_exceeded", "canceled", "server_misbehaving"),
                    *("connection_refused", "temporary_failure", "other"),
                ],
            )
        },
        {
            "code": or_null({"description": "Its number, as the call returned it.", "type": "integer"}),
            "message": or_null(text("Its text, as the caller can show it.")),
        },
    )


def query() -> Schema:
    """One DNS question on its way."""
    required = {
        "name": or_null(text("The name in the question, with its final dot; null when not observed.")),
        "type": or_null(text("The record type asked for; null when not observed.", examples=["A", "AAAA"])),
        "id": or_null(count("The transaction id; null when not observed.", at_most=ID_MAX)),
        "server": or_null(server()),
        "network": record("The way it takes.", {"transport": transport()}),
        "encrypted": or_null(choice("Null when in the clear.", {"dot": "DNS over TLS."})),
        "attempt": or_null(
            count("1 for the first time this question is sent, then 2, 3 …; null: not observed.", at_least=1)
        ),
        "sent_ms": or_null(measure(f"When it was first sent, counted from {START}; null: not seen.")),
        "reply_ms": or_null(measure(f"When the answer came, counted from {START}; null: none.")),
        "rcode": or_null(
            text("The answer's response code; null: no answer.", examples=["NOERROR", "SERVFAIL"])
        ),
        "truncated": flag("Whether the answer was marked as cut short (TC), so that TCP must follow."),
        "state": choice("How it stands.", QUERY_STATES),
    }
    may = {
        "resent_ms": or_null(measure(f"When it was last sent again, counted from {START}; null: never.")),
        "error": or_null(
            text("The error of the socket; null: none.", pattern="^E[A-Z0-9]+$", examples=["ENETUNREACH"])
        ),
    }
    return record(f"A DNS question, with all times counted from {START}.", required, may)


def waiting_on() -> Schema:
    """What a thread sits in."""
    socket = record(
        "The socket it waits for, where the call names one.",
        {
            "fd": count("File descriptor number in the process."),
            "server": or_null(server()),
            "rx_queue_bytes": or_null(count("Bytes that have arrived and were not read.")),
        },
    )
    return record(
        _WAITING,
        {
            "syscall": text("The system call.", pattern="^[a-z_][a-z0-9_]*$", examples=["poll", "futex"]),
            "since_ms": or_null(measure("For how long, at the least; null when not known.")),
            "socket": or_null(socket),
        },
    )
