"""Who is behind the one that a lookup asks: local daemons, and what each of them waits for itself.

Owns: joining a lookup to the daemon at the other end of its socket, and to that one's own questions.
Must not know: how daemons are found or followed, causes, lines. Pure.

The proof of the first step is the socket: whose it is at the other end. That of the next is the question: the
daemon has asked for the very name and type, and not before ours could have come to it, or it waits for that
answer already. What a daemon sends encrypted has no name: then its connections alone are told.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ebpfdns.model import decode
from ebpfdns.model.facts import Hop, HopConnect, Query, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ebpfdns.model.facts import Connect, Lookup

Facts = dict[str, Any]
Role = Literal["stub", "upstream", "daemon"]
Thing = TypeVar("Thing")

DNS, DOT = 53, 853
MAX_HOPS = 3
MAX_QUERIES = 8
NS_PER_MS = 1_000_000
#: Two clocks' worth of patience: the daemon's question is seen on another socket than ours.
SLACK_NS = 50 * NS_PER_MS
#: An answer may take as long; and the kernel's own times are in ticks, of which an idle machine misses some.
SILENT_NS = TICKS_NS = 200 * NS_PER_MS
RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
SERVICES: dict[str, Role] = {RESOLVE: "stub", "/run/nscd/socket": "daemon", "/var/run/nscd/socket": "daemon"}
UP = ("ESTABLISHED", "CLOSE_WAIT", "FIN_WAIT1", "FIN_WAIT2")


@dataclass(frozen=True, slots=True)
class Around:
    """What was looked at beside the lookup, at one moment."""

    now_ns: int
    daemons: Mapping[str, Facts]
    process: Facts | None = None  # snapshots of who looks up
    thread: Facts | None = None
    #: lookups of daemons that have ended, by pid, the oldest first
    past: Mapping[int, Sequence[Lookup]] = field(default_factory=dict)
    #: how the names of the lookup and of `past` were changed, so that they can be compared
    redact: Callable[[Lookup], Lookup] = lambda one: one


def chain_of(lookup: Lookup, around: Around) -> tuple[Hop, ...]:
    """The hops in order."""
    hops: list[Hop] = []
    step = _asked_first(lookup, around.process or {}, around.thread or {})
    while step is not None and len(hops) < MAX_HOPS:
        facts = around.daemons.get(str(step.pid))
        # A program that serves the address itself is not behind it: its questions are the lookup's own.
        if facts is None or step.pid == lookup.pid or any(hop.pid == step.pid for hop in hops):
            break
        hop = _hop(step, facts, lookup, around)
        hops.append(hop)
        step = _asked_next(hop, facts)
    return tuple(hops)


def wanted_names(lookup: Lookup) -> frozenset[bytes]:
    """The names whose questions a daemon may ask for it, in one spelling."""
    asked = {query.name for query in lookup.queries if query.name is not None and _waits(query)}
    names = asked or ({lookup.name} if lookup.name else set())
    return frozenset(map(_plain, names))


def _plain(name: bytes) -> bytes:
    return name.rstrip(b".").lower()


def _waits(query: Query) -> bool:
    return query.was_sent and query.error is None and not query.is_answered


# Who.


class Step(NamedTuple):
    """From one who asks to the daemon that is asked."""

    pid: int
    role: Role
    asked_at: str


def _asked_first(lookup: Lookup, process: Facts, thread: Facts) -> Step | None:
    """(pid, role, where) of the daemon that it waits for; None when there is none, or more than one way."""
    servers = {query.server.address for query in lookup.queries if _waits(query)}
    listeners = process.get("listeners") or {}
    if servers:
        if not servers <= listeners.keys():
            return None
        owners = [(address, listeners[address].get("owner") or {}) for address in sorted(servers)]
        pids = {owner.get("pid") for _, owner in owners}
        pid = pids.pop() if len(pids) == 1 else None
        return Step(pid, "stub", owners[0][0]) if pid else None
    known = {facts.get("inode"): facts for facts in process.get("sockets") or ()}
    for facts in thread.get("sockets") or ():
        peer = facts.get("peer") or known.get(facts.get("inode"), {}).get("peer") or {}
        pid = (peer.get("owner") or {}).get("pid")
        if pid and peer.get("path") in SERVICES:
            return Step(pid, SERVICES[peer["path"]], peer["path"])
    return None


def _asked_next(hop: Hop, facts: Facts) -> Step | None:
    """The daemon of this host that the hop asks in its turn."""
    listeners = facts.get("listeners") or {}
    for query in hop.queries:
        owner = (listeners.get(query.server.address) or {}).get("owner") or {}
        if owner.get("pid") and owner["pid"] != hop.pid:
            return Step(owner["pid"], "upstream", query.server.address)
    return None


# What it waits for.


def _hop(step: Step, facts: Facts, lookup: Lookup, around: Around) -> Hop:
    names = wanted_names(lookup)
    records = list(map(around.redact, _records(decode.lookup, facts.get("lookups") or ())))
    ended = [one for one in around.past.get(step.pid, ()) if (one.end_ns or 0) >= lookup.start_ns]
    waiting = [query for one in records for query in one.queries if _waits(query)]
    ours = [query for query in waiting if _is_named(query, names)]
    sockets, settings = facts.get("sockets") or (), facts.get("settings") or {}
    unseen = [] if waiting else list(_of_sockets(sockets, around.now_ns))
    over = [query for one in records for query in one.queries if not _waits(query)]
    over += [query for one in ended for query in one.queries]
    since_ns = lookup.start_ns - SLACK_NS
    return Hop(
        role=step.role,
        pid=step.pid,
        asked_at=step.asked_at,
        name=facts.get("name"),
        process_state=facts.get("state"),
        syscall=facts.get("syscall"),
        queries=tuple((ours or waiting or unseen)[-MAX_QUERIES:]),
        is_joined=bool(ours),
        others_open=len(waiting) - len(ours),
        connects=tuple(_connects(facts.get("connects") or (), sockets, around.now_ns - lookup.start_ns)),
        past=tuple(query for query in over if _is_named(query, names) and query.sent_ns >= since_ns),
        dns_over_tls=_dns_over_tls(settings),
        dnssec=settings.get("dnssec"),
    )


def _records(decoder: Callable[[bytes], Thing], raws: Iterable[bytes]) -> Iterator[Thing]:
    for raw in raws:
        with contextlib.suppress(decode.DecodeError):  # of a recording
            yield decoder(raw)


def _is_named(query: Query, names: frozenset[bytes]) -> bool:
    return query.name is not None and _plain(query.name) in names


def _of_sockets(sockets: Iterable[Facts], now_ns: int) -> Iterator[Query]:
    """Questions that left before the daemon was followed, as far as its sockets tell."""
    for facts in sockets:
        if facts["kind"] == "udp" and facts.get("remote") and facts["remote"][1] == DNS:
            yield Query(Server(*facts["remote"]), "udp", now_ns, sent_is_known=False)


def _connects(raws: Iterable[bytes], sockets: Iterable[Facts], age_ns: int) -> Iterator[HopConnect]:
    """Its TCP connections to DNS servers: those that are being made, and those that are up."""
    records = _records(decode.connect, raws)
    of_servers = [one for one in records if one.transport == "tcp"]
    for facts in sockets:
        if facts["kind"] != "tcp" or not facts.get("remote"):
            continue
        server = Server(*facts["remote"])
        # By sendto(MSG_FASTOPEN) it is connected without connect(): then its descriptor is not known.
        those = (one for one in of_servers if one.server == server and one.fd in {facts["fd"], 0})
        record = next(those, None)
        if record is not None:
            of_servers.remove(record)
        yield _connection(server, facts, record, age_ns)


def _connection(server: Server, facts: Facts, record: Connect | None, age_ns: int) -> HopConnect:
    told = facts.get("tcp") or {}
    is_tls = record is not None and record.is_tls
    sent_ago_ns = _ns(told.get("last_sent_ms")) if told.get("bytes_sent") else None
    received_ago_ns = _ns(told.get("last_received_ms")) if told.get("bytes_received") else None
    return HopConnect(
        server=server,
        is_up=facts.get("state") in UP,
        begun_ns=None if record is None or is_tls else record.start_ns,
        hello_ns=record.start_ns if record is not None and is_tls else None,
        state=facts.get("state"),
        retransmits=max(told.get("retransmits_total") or 0, facts.get("retransmits") or 0),
        bytes_sent=told.get("bytes_sent"),
        bytes_received=told.get("bytes_received"),
        sent_ago_ns=sent_ago_ns,
        received_ago_ns=received_ago_ns,
        is_silent=facts.get("state") in UP and _is_silent(sent_ago_ns, received_ago_ns, age_ns),
    )


def _is_silent(sent_ago_ns: int | None, received_ago_ns: int | None, age_ns: int) -> bool:
    """Whether something was sent since the lookup began, and nothing has come for a while.

    One that only waits to be used again has carried nothing since then.
    """
    if sent_ago_ns is None or sent_ago_ns > age_ns + max(TICKS_NS, age_ns // 8):
        return False
    return min(sent_ago_ns, sent_ago_ns if received_ago_ns is None else received_ago_ns) >= SILENT_NS


def _ns(ms: int | None) -> int | None:
    return None if ms is None else ms * NS_PER_MS


def _dns_over_tls(settings: Facts) -> str | None:
    """The strictest of what is configured: a link's own setting may say more than the file."""
    told = [settings.get("dns_over_tls"), *(settings.get("link_dns_over_tls") or ())]
    return next((word for word in ("yes", "opportunistic", "no") if word in told), None)
