"""What is known of a lookup that began before tracing, beyond its own record.

Owns: its questions that left unseen, and its name. Must not know: bytes, causes, how a thread is looked at.
Pure: the look at its thread is an argument, and so is what was last said of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfdns.model.facts import Query, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ebpfdns.model.facts import Lookup


def completed(lookup: Lookup, facts: Mapping[str, Any] | None, before: Lookup | None) -> Lookup:
    """The lookup with what its thread shows (`facts`), and what its last line had (`before`)."""
    seen = {(query.server, query.transport) for query in lookup.queries}
    waiting = [*(before.queries if before else ()), *_asked(lookup, facts or {})]
    unseen = {
        (query.server, query.transport): query
        for query in reversed(waiting)
        if not query.sent_is_known and (query.server, query.transport) not in seen
    }
    queries = (*reversed(unseen.values()), *lookup.queries)
    name = lookup.name or (before.name if before else None) or _asked_name(queries)
    return replace(lookup, queries=queries, name=name, comm=lookup.comm or (before.comm if before else b""))


def _asked(lookup: Lookup, facts: Mapping[str, Any]) -> Iterator[Query]:
    """The questions whose answers its thread waits for: where to and how, not when or what."""
    wait = facts.get("resolver_wait") or {}
    fds = wait.get("fds") or () if wait.get("kind") == "dns" else ()
    for waited in facts.get("sockets") or ():
        remote = waited.get("remote")
        is_connected = waited.get("kind") == "udp" or waited.get("state") == "ESTABLISHED"
        if waited.get("fd") in fds and remote and is_connected:
            yield Query(Server(*remote), waited["kind"], lookup.start_ns, sent_is_known=False)


def _asked_name(queries: tuple[Query, ...]) -> bytes | None:
    """The name in a question, without its final dot: as the program asked, or with a search suffix."""
    name = next((query.name for query in queries if query.name), None)
    return None if name is None else name.removesuffix(b".") or name
