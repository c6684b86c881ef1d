"""The `message` of each line: one sentence for people.

Owns: these sentences. Must not know: fields of a line, how a cause is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.model.facts import Connect, Lookup
from ebpfdns.publish.errors import errno_name
from ebpfdns.publish.events import connect_target, lookup_error, name_text, seconds

if TYPE_CHECKING:
    from ebpfdns.diagnose.cause import Cause


#: A lookup that waits for a thread of libuv's pool.
QUEUED = "uv_getaddrinfo"


def _what(thing: Lookup | Connect) -> str:
    if isinstance(thing, Connect):
        return f"{'TLS handshake with' if thing.is_tls else 'connect to'} {connect_target(thing)}"
    return f"lookup of {name_text(thing) or 'a name'}"


def in_flight(thing: Lookup | Connect, now_ns: int, cause: Cause) -> str:
    """It is stuck, for so long, because of this."""
    return f"{_what(thing)} in flight for {_age(thing, now_ns - thing.start_ns)}: {cause.summary}"


def ended(thing: Lookup | Connect, now_ns: int, cause: Cause | None = None) -> str:
    """It has ended so, after so long."""
    given_up = "was given up after" if isinstance(thing, Connect) else "was abandoned after"
    verb = {"ok": "took", "failed": "failed after"}.get(thing.status, given_up)
    took = _age(thing, (now_ns if thing.end_ns is None else thing.end_ns) - thing.start_ns)
    if thing.status == "unseen":
        verb = "has ended, how was not seen, after"
    # What kept a connection waiting that then came up is in the cause; "does not answer" would be wrong here.
    is_up = isinstance(thing, Connect) and thing.status == "ok"
    why = _error(thing) if cause is None or is_up else cause.summary
    return f"{_what(thing)} {verb} {took}" + (f": {why}" if why else "")


def _age(thing: Lookup | Connect, ns: int) -> str:
    """How long, as far as that is known."""
    return f"at least {seconds(ns)}" if thing.before_attach else seconds(ns)


def _error(thing: Lookup | Connect) -> str | None:
    """The name of the error that the caller was told."""
    if thing.status != "failed":
        return None
    if isinstance(thing, Lookup):
        return str(lookup_error(thing)["type"])
    return None if thing.error is None else errno_name(thing.error)


def end_lost(thing: Lookup | Connect) -> str:
    """It has ended, and nobody told how."""
    if isinstance(thing, Lookup) and thing.api == QUEUED:
        return f"{_what(thing)} has left the queue of the thread pool; its getaddrinfo is a lookup of its own"
    return f"{_what(thing)} has ended; how was lost"


def attached(program: str | None, pid: int, *, again: bool) -> str:
    """A process is traced."""
    return f"{'still tracing, now it runs' if again else 'tracing'} {program or 'a program'} (pid {pid})"


def followed(program: str | None, pid: int) -> str:
    """A process is traced because a target asks it."""
    return f"following {program or 'a program'} (pid {pid}), which is asked for names"


def gone(program: str | None, pid: int, status: str) -> str:
    """A process is not traced any more."""
    name = program or "a program"
    return f"{name} (pid {pid}) has exited" if status == "exited" else f"no longer tracing {name}"


def lost(stage: str, count: int, remedy: str) -> str:
    """Something was dropped."""
    return f"{count} lost ({stage}): {remedy}"


def totals(lookups: dict[str, int]) -> str:
    """The counters in short."""
    return "{started} lookups: {ok} ok, {failed} failed, {stuck} stuck, {in_flight} in flight".format(
        **lookups
    )
