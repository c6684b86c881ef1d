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
    known = before.queries if before else ()
    asked = [*(query for query in known if _is_unseen(query)), *_asked(lookup, facts or {})]
    unseen = {(query.server, query.transport): query for query in reversed(asked)}
    is_same = bool(((facts or {}).get("resolver_wait") or {}).get("is_first_socket"))
    repeated = {_identity(query) for query in known if query.id is not None and not query.sent_is_known}
    seen: list[Query] = []
    for query in lookup.queries:
        earlier = unseen.pop((query.server, query.transport), None)
        is_repetition = _identity(query) in repeated or (earlier is not None and is_same)
        seen.append(_repetition(query, lookup.start_ns) if is_repetition else query)
        if is_repetition and earlier is not None:
            repeated |= {_identity(other) for other in lookup.queries if other.socket == query.socket}
    queries = (*reversed(unseen.values()), *seen)
    name = lookup.name or (before.name if before else None) or _asked_name(queries)
    return replace(lookup, queries=queries, name=name, comm=lookup.comm or (before.comm if before else b""))


def _is_unseen(query: Query) -> bool:
    return query.id is None and not query.sent_is_known


def _identity(query: Query) -> tuple[int, int | None, int | None]:
    return query.socket, query.id, query.type


def _repetition(query: Query, since_ns: int) -> Query:
    """A question that left again on a socket on which it had left before."""
    resent_ns = query.resent_ns or query.sent_ns
    return replace(
        query, sent_ns=since_ns, sent_is_known=False, resent_ns=resent_ns, attempts=query.attempts + 1
    )


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
