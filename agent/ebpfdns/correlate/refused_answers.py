"""The daemon behind a lookup that it has answered with an error: what its own servers had said to it.

Owns: joining such a lookup to the daemon's own questions, which are over. Must not know: causes, lines. Pure.

The proof is the question: the daemon asked for the very name and type after ours had come to it, and before
it answered. That the address is its own was found when it was followed. Where it asked nobody (it remembers
its failures for a while) there is no hop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.correlate.chains import MAX_QUERIES
from ebpfdns.model.facts import Hop, Lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ebpfdns.correlate.items import Attached
    from ebpfdns.model.facts import Connect, Query

#: SERVFAIL, NOTIMP, REFUSED
ERRORS = frozenset({2, 4, 5})
#: DS, DNSKEY: asked for the name and those above it, to validate an answer
SIGNED_BY = frozenset({43, 48})


def chain_at_the_end(
    thing: Lookup | Connect,
    told: tuple[Hop, ...],
    serves: Callable[[str], Attached | None],
    ended: Callable[[int], Sequence[Lookup]],
) -> tuple[Hop, ...]:
    """The chain of the last line; `told`: that of the line before, kept where nothing better is known."""
    if not isinstance(thing, Lookup) or len(told) > 1:
        return told
    bad = [query for query in thing.queries if query.is_answered and query.rcode in ERRORS]
    addresses = {query.server.address for query in bad}
    daemon = serves(addresses.pop()) if len(addresses) == 1 else None
    if daemon is None or (told and told[0].pid != daemon.pid):
        return told
    own = [query for one in ended(daemon.pid) for query in one.queries]
    if not any(_is_for(query, ours) for query in own for ours in bad):
        return told
    past = [query for query in own if any(_is_for(query, ours) or _validates(query, ours) for ours in bad)]
    return (
        Hop(
            role="stub",
            pid=daemon.pid,
            asked_at=bad[0].server.address,
            name=daemon.process["executable"]["name"],
            is_joined=True,
            past=tuple(_first(past)),
            dns_over_tls=daemon.settings.get("dns_over_tls"),
            dnssec=daemon.settings.get("dnssec"),
        ),
    )


def _first(queries: Iterable[Query]) -> list[Query]:
    """As many as are told: those for ours before those for keys, in their order."""
    kept = sorted(queries, key=lambda query: (query.type in SIGNED_BY, query.sent_ns))[:MAX_QUERIES]
    return sorted(kept, key=lambda query: query.sent_ns)


def _is_for(own: Query, ours: Query) -> bool:
    """Whether the daemon's question is ours."""
    is_same = own.type == ours.type and own.name is not None and _plain(own.name) == _plain(ours.name)
    return is_same and _is_within(own, ours)


def _validates(own: Query, ours: Query) -> bool:
    """Whether the daemon asked for a key that may sign the answer to ours."""
    if own.type not in SIGNED_BY or own.name is None or not _is_within(own, ours):
        return False
    return f".{_plain(ours.name)}".endswith(f".{_plain(own.name)}")


def _is_within(own: Query, ours: Query) -> bool:
    return ours.sent_ns <= own.sent_ns <= (ours.reply_ns or 0)


def _plain(name: bytes | None) -> str:
    return (name or b"").rstrip(b".").lower().decode("latin-1")
