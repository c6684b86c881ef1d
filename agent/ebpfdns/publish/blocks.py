"""An event as a block for people: a headline, the verdict, and rows below it; on paper and on screens.

Owns: which facts of an event people are shown, in what order and under what label: the cause first.
Must not know: colours, widths, where a block is shown, what was shown before.
Everything here is a choice from the event: no fact exists in a block alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.publish import figures
from ebpfdns.publish.phrases import address, age, amount, clean, connect_target, waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.publish.events import Event

STUCK_KINDS = {"lookup_stuck": "lookup", "connect_stuck": "connect"}
ENDED_KINDS = ("lookup", "connect")
ENDS = {"ok": "took", "failed": "failed after", "abandoned": "was given up after"}


@dataclass(frozen=True)
class Branch:
    """A line with lines below it."""

    text: str
    below: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Row:
    """A label, and what belongs to it: one of the four."""

    label: str
    text: str = ""
    points: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = ()
    tree: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class Block:
    """What people see of one event."""

    clock: str
    state: str
    """What the mark in front says: stuck, ok, failed, abandoned, lost, news."""
    message: str
    """The whole event in one sentence: the headline on paper."""
    title: str
    """What this is about, with no word on its cause: the headline of a block on a screen."""
    aged: bool = False
    """Whether its age, which grows, belongs behind the title."""
    verdict: str = ""
    rows: tuple[Row, ...] = ()


def key(event: Event) -> str | None:
    """What joins the lines about one lookup or connect; None for anything else."""
    kind = STUCK_KINDS.get(event["event"], event["event"])
    return f"{kind} {(event.get(kind) or {}).get('id')}" if kind in ENDED_KINDS else None


def is_stuck(event: Event) -> bool:
    """Whether this is about something that has not ended."""
    return event["event"] in STUCK_KINDS


def told_age_ms(event: Event) -> float | None:
    """How old a stuck thing was when this was told; None when that is not known."""
    told: float | None = (event.get(STUCK_KINDS.get(event["event"], "")) or {}).get("elapsed_ms")
    return told


def cause_id(event: Event) -> str:
    """What it is put down to."""
    return clean((event.get("cause") or {}).get("id") or "unknown")


def block(event: Event) -> Block:
    """The event, for people."""
    about = key(event)
    return _news(event) if about is None else _thing(event, about.split(" ", 1)[0])


def _clock(event: Event) -> str:
    return clean(event["ts"])[11:23]


def _thing(event: Event, kind: str) -> Block:
    """A lookup or a connect."""
    thing, cause = event.get(kind) or {}, event.get("cause") or {}
    what = f"lookup of {clean(thing.get('name')) or 'a name'}" if kind == "lookup" else connect_target(thing)
    stuck = is_stuck(event)
    rows = [*_cause_rows(cause), *(_lookup_rows(thing) if kind == "lookup" else _connect_rows(thing))]
    rows += [Row("behind", tree=_chain(event["chain"]))] if event.get("chain") else []
    return Block(
        clock=_clock(event),
        state="stuck" if stuck else thing.get("status") or "lost",
        message=clean(event["message"]),
        title=what if stuck else f"{what} {_end(thing)}",
        aged=stuck,
        verdict=clean(cause.get("summary")),
        rows=(*rows, Row("who", ", ".join(_who(event, thing)))),
    )


def _end(thing: Event) -> str:
    if thing.get("lost_end"):
        return "has ended; how was lost"
    verb = ENDS.get(thing.get("status") or "", "ended after")
    took = thing.get("duration_ms")
    error = clean((thing.get("error") or {}).get("type"))
    return f"{verb} {'a time not known' if took is None else age(took)}" + (f": {error}" if error else "")


def _cause_rows(cause: Event) -> Iterator[Row]:
    if not cause:
        return
    yield Row("cause", f"{clean(cause.get('id'))} ({clean(cause.get('confidence'))})")
    if cause.get("evidence"):
        yield Row("because", points=tuple(clean(one.get("text")) for one in cause["evidence"]))
    if cause.get("remedy"):
        yield Row("try", clean(cause["remedy"]).removeprefix("Try: "))


def _lookup_rows(lookup: Event) -> Iterator[Row]:
    yield from _common_rows(lookup)
    if lookup.get("addresses"):
        yield Row("gave", ", ".join(map(clean, lookup["addresses"])))
    if lookup.get("queries"):
        more = ((f"and {lookup['more_queries']} more",),) if lookup.get("more_queries") else ()
        yield Row("queries", table=(*map(_query, lookup["queries"]), *more))
    if lookup.get("waiting_on"):
        yield Row("waits", waits(lookup["waiting_on"]))
    back = lookup.get("last_event_loop_return")
    if back:
        yield Row("loop", f"last came back from {clean(back['kind'])} {age(back['ago_ms'])} ago")


def _connect_rows(connect: Event) -> Iterator[Row]:
    yield from _common_rows(connect)
    tcp = connect.get("tcp")
    if tcp:
        yield Row("tcp", f"{clean(tcp.get('state'))}, {amount(tcp.get('retransmits'))} retransmits")
    if connect.get("lookup"):
        yield Row("address", f"from the lookup of {clean(connect['lookup'].get('name')) or 'a name'}")


def _common_rows(thing: Event) -> Iterator[Row]:
    message = clean((thing.get("error") or {}).get("message"))
    if message:
        yield Row("error", f"{clean(thing['error'].get('type'))}: {message}")
    if thing.get("since") == "before_attach":
        least = thing.get("open_for_at_least_ms")
        open_for = "" if least is None else f", open for at least {age(least)}"
        yield Row("since", f"it was in flight before tracing began{open_for}")


def _query(query: Event) -> tuple[str, ...]:
    """One question in a line of the table."""
    sent, reply, attempt = query.get("sent_ms"), query.get("reply_ms"), query.get("attempt")
    state = [
        clean(query.get("state")).replace("_", " "),
        clean(query.get("rcode")),
        clean(query.get("error")),
    ]
    state += [] if reply is None or sent is None else [f"in {age(max(reply - sent, 0))}"]
    return (
        clean(query.get("type")) or "?",
        clean(query.get("name")) or "?",
        address(query.get("server")) or "?",
        clean(query.get("encrypted")) or clean((query.get("network") or {}).get("transport")),
        f"attempt {attempt}" if attempt and attempt > 1 else "",
        "" if sent is None else f"at {age(sent)}",
        " ".join(filter(None, state)),
    )


def _who(event: Event, thing: Event) -> Iterator[str]:
    """Whose it is, and by what name the JSON lines know it."""
    yield from _process(event)
    if thing.get("goroutine"):
        yield f"goroutine {thing['goroutine'].get('id')}"
    if thing.get("api"):
        by = f"{clean(thing['api'])}"
        yield by if thing.get("resolver") in (None, "unknown") else f"{by} of {clean(thing['resolver'])}"
    if thing.get("purpose"):
        yield f"for {clean(thing['purpose'])}"
    yield f"id {clean(thing.get('id'))}"


def _process(event: Event) -> Iterator[str]:
    process, thread = event.get("process") or {}, event.get("thread") or {}
    yield f"{clean((process.get('executable') or {}).get('name')) or 'a program'} {process.get('pid', '?')}"
    if thread.get("id") not in (None, process.get("pid")):
        yield f"thread {thread['id']}" + (f" {clean(thread['name'])}" if thread.get("name") else "")
    if event.get("container"):
        yield f"container {clean(event['container'].get('name') or event['container'].get('id'))[:12]}"
    pod = (event.get("k8s") or {}).get("pod") or {}
    if pod:
        yield f"pod {clean(pod.get('name') or pod.get('uid'))}"


def _chain(hops: list[Event]) -> tuple[Branch, ...]:
    """Each hop stands below the one before."""
    if not hops:
        return ()
    hop, *behind = hops
    process = hop.get("process") or {}
    name = clean((process.get("executable") or {}).get("name")) or "an unknown process"
    pid = f" {process['pid']}" if process.get("pid") else ""
    queries = tuple(
        Branch(" ".join(filter(None, ("asks", *_query(one))))) for one in hop.get("queries") or ()
    )
    connects = tuple(Branch(_hop_connect(one)) for one in hop.get("connects") or ())
    text = f"{name}{pid} ({clean(hop.get('role'))}): {clean(hop.get('state')).replace('_', ' ')}"
    return (Branch(text, (*queries, *connects, *_chain(behind))),)


def _hop_connect(connect: Event) -> str:
    parts = [connect_target(connect), clean(connect.get("status")).replace("_", " ")]
    if connect.get("elapsed_ms") is not None:
        parts.append(age(connect["elapsed_ms"]))
    tcp = connect.get("tcp")
    if tcp:
        parts.append(f"{clean(tcp.get('state'))}, {amount(tcp.get('retransmits'))} retransmits")
    return ", ".join(filter(None, parts))


def _news(event: Event) -> Block:
    """What is about a process, an event loop, or the agent."""
    message = clean(event["message"])
    kind = event["event"]
    state = {"lost": "lost", "event_loop_stall": "stuck"}.get(kind, "news")
    rows = {"target": _target_rows, "event_loop_stall": _loop_rows, "stats": figures.rows}.get(kind)
    shown = tuple(Row(*row) for row in rows(event)) if rows else ()
    return Block(clock=_clock(event), state=state, message=message, title=message, rows=shown)


def _target_rows(event: Event) -> Iterator[tuple[Any, ...]]:
    coverage = (event.get("target") or {}).get("coverage") or {}
    if (event.get("target") or {}).get("status") == "attached" and coverage.get("missing"):
        yield "not seen", "", tuple(map(clean, coverage["missing"]))


def _loop_rows(event: Event) -> Iterator[tuple[Any, ...]]:
    loop = event.get("event_loop") or {}
    ready = loop.get("ready") or ()
    if ready:
        yield "ready", "", tuple(_ready(one) for one in ready)
    doing = loop.get("doing") or {}
    parts = [f"in {clean(doing['syscall'])}"] if doing.get("syscall") else []
    parts += [f"state {clean(doing['state'])}"] if doing.get("state") else []
    parts += [f"throttled for {age(doing['throttled_ms'])}"] if doing.get("throttled_ms") else []
    if parts:
        yield "thread", ", ".join(parts)
    if loop.get("lookup"):
        yield "holds up", f"the lookup of {clean(loop['lookup'].get('name')) or 'a name'}"
    yield "who", ", ".join(_process(event))


def _ready(one: Event) -> str:
    where = address((one.get("socket") or {}).get("server"))
    parts = [f"descriptor {one.get('fd')}" + (f" to {where}" if where else "")]
    parts += [f"for {clean(one['purpose'])}"] if one.get("purpose") else []
    parts += [f"{one['rx_queue_bytes']} bytes unread"] if one.get("rx_queue_bytes") else []
    parts += [f"ready for {age(one['ready_ms'])}"] if one.get("ready_ms") is not None else []
    return ", ".join(parts)
