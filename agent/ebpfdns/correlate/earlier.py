"""What is known of a lookup that began before tracing, beyond its own record.

Owns: its questions that left unseen, and its name. Must not know: bytes, causes, how a thread is looked at.
Pure: the look at its thread is an argument, and so is what was last said of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfdns.model import dns_names
from ebpfdns.model.facts import Query, Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ebpfdns.model.facts import Lookup

_TYPE_NUMBERS = {name: number for number, name in dns_names.TYPES.items()}


def completed(lookup: Lookup, facts: Mapping[str, Any] | None, before: Lookup | None) -> Lookup:
    """The lookup with what its thread shows (`facts`), and what its last line had (`before`)."""
    known = [query for query in (before.queries if before else ()) if not query.sent_is_known]
    asked = [*(query for query in known if not query.socket), *_asked(lookup, facts or {})]
    unseen = {(query.server, query.transport, query.id): query for query in asked}
    if any(query.id is not None for query in unseen.values()):
        unseen = {key: query for key, query in unseen.items() if query.id is not None}
    is_same = bool(((facts or {}).get("resolver_wait") or {}).get("is_first_socket"))
    repeated = {_identity(query) for query in known if query.socket}
    seen: list[Query] = []
    for query in lookup.queries:
        alike = [one for one in unseen.values() if _way(one) == _way(query)]
        is_known = any((one.id, one.type) == (query.id, query.type) for one in alike)
        if is_known or (is_same and any(one.id is None for one in alike)):
            repeated |= {_identity(other) for other in lookup.queries if other.socket == query.socket}
        seen.append(_repetition(query, lookup.start_ns) if _identity(query) in repeated else query)
    ways = set(map(_way, seen))
    left = (query for query in unseen.values() if _way(query) not in ways)
    queries = (*left, *seen)
    name = (
        lookup.name or (before.name if before else None) or _given_name(facts or {}) or _asked_name(queries)
    )
    comm = lookup.comm or (before.comm if before else b"")
    api = ((facts or {}).get("resolver_wait") or {}).get("api") or (before.api if before else lookup.api)
    return replace(lookup, queries=queries, name=name, comm=comm, api=api)


def completed_goroutine(lookup: Lookup, facts: Mapping[str, Any] | None, before: Lookup | None) -> Lookup:
    """The same of a goroutine's lookup: its stack showed what had been asked, once, when tracing began.

    Each attempt of Go's resolver has a socket and an id of its own: what is asked later is another one.
    """
    known = tuple(query for query in (before.queries if before else ()) if not query.sent_is_known)
    unseen = known or tuple(_shown(lookup, facts or {}))
    seen = {(query.id, query.type) for query in lookup.queries}
    left = (query for query in unseen if query.id is None or (query.id, query.type) not in seen)
    queries = (*left, *lookup.queries)
    name = (facts or {}).get("name")
    given = str(name).encode("ascii", "backslashreplace") if name else None
    name_of = lookup.name or (before.name if before else None) or given or _asked_name(queries)
    return replace(lookup, queries=queries, name=name_of)


def _shown(lookup: Lookup, facts: Mapping[str, Any]) -> Iterator[Query]:
    """The attempts that were under way, to whom, and what of each its memory proves."""
    for question in facts.get("questions") or ():
        server = question.get("server")
        if server is not None:
            yield Query(
                Server(*server),
                question.get("transport"),
                lookup.start_ns,
                sent_is_known=False,
                was_sent=question.get("transport") is not None,  # otherwise its connection is not made yet
                attempt="running",
                name=str(question["name"]).encode("ascii", "replace"),
                type=_TYPE_NUMBERS.get(question["type"]),
                id=question.get("id"),
            )


def _way(query: Query) -> tuple[Server, str | None]:
    return query.server, query.transport


def _identity(query: Query) -> tuple[int, int | None, int | None]:
    return query.socket, query.id, query.type


def _repetition(query: Query, since_ns: int) -> Query:
    """A question that left again on a socket on which it had left before."""
    resent_ns = query.resent_ns or query.sent_ns
    return replace(
        query, sent_ns=since_ns, sent_is_known=False, resent_ns=resent_ns, attempts=query.attempts + 1
    )


def _asked(lookup: Lookup, facts: Mapping[str, Any]) -> Iterator[Query]:
    """The questions whose answers its thread waits for: to whom; what, if its memory tells; never when."""
    messages = facts.get("asked") or {"name": None, "types": [None], "ids": [None]}
    name = messages["name"] and str(messages["name"]).encode("ascii", "replace")
    wait = facts.get("resolver_wait") or {}
    fds = wait.get("fds") or () if wait.get("kind") == "dns" else ()
    for waited in facts.get("sockets") or ():
        remotes = [waited["remote"]] if waited.get("remote") else messages.get("servers") or []
        is_connected = waited.get("kind") == "udp" or waited.get("state") == "ESTABLISHED"
        if waited.get("fd") not in fds or not is_connected:
            continue
        for remote in remotes:
            for kind, number in zip(messages["types"], messages["ids"], strict=True):
                asked = {"name": name, "type": _TYPE_NUMBERS.get(kind), "id": number}
                yield Query(Server(*remote), waited["kind"], lookup.start_ns, sent_is_known=False, **asked)


def _given_name(facts: Mapping[str, Any]) -> bytes | None:
    """The name as the program gave it, if the frames of its call show that."""
    name = (facts.get("asked") or {}).get("program_name")
    return str(name).encode("ascii", "backslashreplace") if name else None


def _asked_name(queries: tuple[Query, ...]) -> bytes | None:
    """The name in a question, without its final dot: as the program asked, or with a search suffix."""
    name = next((query.name for query in queries if query.name), None)
    return None if name is None else name.removesuffix(b".") or name
