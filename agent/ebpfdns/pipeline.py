"""The middle, put together: items in, event lines (as dicts) out. Live and replay run this very code.

    item → decode → tracker (is it due? has it ended?) → situation → judge → event

Owns: the order of the steps and what is remembered about targets. Must not know: bcc, clocks, files, sockets.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ebpfdns.correlate.losses import REMEDIES, LossBook
from ebpfdns.correlate.tracker import Name, Tracker
from ebpfdns.diagnose import judge
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.model import boundary, decode
from ebpfdns.model.boundary import Counter, Latency, WaitKind
from ebpfdns.model.facts import Connect, Lookup, ProcessEvent, Situation
from ebpfdns.publish import events
from ebpfdns.publish.lines import printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ebpfdns.correlate import items
    from ebpfdns.publish.events import Event

Thing = TypeVar("Thing", Lookup, Connect)
Raw = TypeVar("Raw")
Fact = TypeVar("Fact")

#: Until the recording says otherwise.
STUCK_AFTER_NS = 1_000_000_000
#: Lookup ids that a later connect may refer to.
REMEMBERED_IDS = 4096


class Pipeline:
    """Feed it items in order; it answers with event dicts, ready to be written."""

    def __init__(self) -> None:
        self._started: items.Started | None = None
        self._tracker = Tracker(STUCK_AFTER_NS)
        self._losses = LossBook()
        self._targets: dict[int, items.Attached] = {}
        self._last: dict[Name, tuple[Lookup | Connect, Cause | None]] = {}
        self._ids: OrderedDict[tuple[int, int], str] = OrderedDict()
        self.execed: list[int] = []  # pids whose program changed: the owner of the loop takes them
        self.forked: list[int] = []

    # What the loop asks before it feeds a scan.

    def is_due(self, kind: str, key: int, start_ns: int, now_ns: int) -> bool:
        """Whether an open thing wants a line now (so that it is worth a snapshot)."""
        return self._tracker.is_due((kind, key, start_ns), now_ns)  # type: ignore[arg-type]

    def next_due_ns(self, kind: str, key: int, start_ns: int) -> int:
        """When an open thing wants its next line."""
        return self._tracker.next_due_ns((kind, key, start_ns))  # type: ignore[arg-type]

    def told_open(self) -> list[Name]:
        """Things told of as open whose end has not been told."""
        return self._tracker.open_names()

    # Items.

    def feed(self, item: items.Item) -> list[Event]:
        """Everything that follows from one item."""
        handler: Callable[[Any], list[Event]] = getattr(self, f"_on_{type(item).__name__.lower()}")
        return handler(item)

    def _on_started(self, item: items.Started) -> list[Event]:
        self._started = item
        self._tracker = Tracker(item.stuck_after_ns)
        return []

    def _on_attached(self, item: items.Attached) -> list[Event]:
        known = self._targets.get(item.pid)
        self._targets[item.pid] = item
        program = item.process["executable"]["name"]
        verb = "tracing" if known is None else "still tracing, now it runs"
        return [
            self._target_event(item, item, "attached", f"{verb} {program} (pid {item.pid})", item.coverage)
        ]

    def _on_gone(self, item: items.Gone) -> list[Event]:
        target = self._targets.pop(item.pid, None)
        if target is None:
            return []
        program = target.process["executable"]["name"]
        message = (
            f"{program} (pid {item.pid}) has exited"
            if item.status == "exited"
            else f"no longer tracing {program}"
        )
        return [self._target_event(item, target, item.status, message, target.coverage)]

    def _target_event(
        self, item: items.Item, target: items.Attached, status: str, message: str, coverage: dict[str, Any]
    ) -> Event:
        found = self._base("target", item, message) | {"process": target.process} | target.around
        return found | {"target": {"status": status, "coverage": coverage}}

    def _on_frames(self, item: items.Frames) -> list[Event]:
        lines: list[Event] = []
        for fact in self._facts(item, decode.frame, item.frames, lines):
            if isinstance(fact, Lookup):
                lines += self._lookup_ends(item, self._redacted(fact))
            elif isinstance(fact, Connect):
                lines += self._connect_ends(item, self._redacted(fact))
            else:
                self._process_changes(fact)
        return lines

    def _facts(
        self, item: items.Item, decoder: Callable[[Raw], Fact], raws: list[Raw], lines: list[Event]
    ) -> Iterator[Fact]:
        """What the bytes say; bytes that say nothing are a loss, told in `lines`."""
        for raw in raws:
            try:
                yield decoder(raw)
            except decode.DecodeError:
                self._losses.add(item.now_ns, "frame_bad", 1)
                lines += self._lost_events(item, {"frame_bad": 1})

    def _process_changes(self, fact: ProcessEvent) -> None:
        (self.execed if fact.change == "execed" else self.forked).append(fact.pid)

    def _on_scan(self, item: items.Scan) -> list[Event]:
        lines: list[Event] = []
        for lookup in self._facts(item, decode.lookup, item.lookups, lines):
            lines += self._lookup_is_open(item, self._redacted(lookup))
        for lookup in self._facts(item, _lookup_of_call, item.calls, lines):
            lines += self._lookup_is_open(item, self._redacted(lookup))
        for connect in self._facts(item, decode.connect, item.connects, lines):
            lines += self._connect_is_open(item, self._redacted(connect))
        for lookup in self._facts(item, decode.lookup, item.expired_lookups, lines):
            lost = replace(self._redacted(lookup), status="abandoned", end_ns=item.now_ns)
            lines += self._lookup_ends(item, lost)
        for connect in self._facts(item, decode.connect, item.expired_connects, lines):
            lines += self._connect_ends(item, replace(self._redacted(connect), status="abandoned"))
        for name in [] if item.vanished is None else self._tracker.vanish(item.vanished):
            lines += self._end_is_lost(item, name)
        return lines

    def _on_lost(self, item: items.Lost) -> list[Event]:
        return self._lost_events(item, self._losses.update(item.now_ns, item.totals))

    def _on_stats(self, item: items.Stats) -> list[Event]:
        return [self._stats_event(item)]

    # Lookups.

    def _lookup_is_open(self, item: items.Scan, lookup: Lookup) -> list[Event]:
        if lookup.status != "in_flight":  # it ended while the map was read; its frame says how
            return []
        name: Name = ("lookup", lookup.key, lookup.start_ns)
        tracked = self._tracker.is_open(name, lookup.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        self._remember_id((lookup.key, lookup.start_ns), tracked.id)
        thread = item.threads.get(str(lookup.tid))
        situation = self._situation(item.now_ns, lookup, thread, item.resolv_confs.get(str(lookup.pid)))
        cause = judge.judge(situation) or UNEXPLAINED
        self._last[name] = (lookup, cause)
        lines: list[Event] = []
        waits = [raw for tid, raw in item.waits.items() if tid == str(lookup.tid)]
        wait = next(self._facts(item, decode.wait, waits, lines), None)
        found = self._about(item, "lookup_stuck", lookup, self._open_message(item.now_ns, lookup, cause))
        found["lookup"] = events.lookup_event(
            lookup,
            identity=tracked.id,
            started_wall_ns=tracked.started_wall_ns,
            resolver=self._resolver(lookup.pid),
            now_ns=item.now_ns,
            update=tracked.updates,
            waiting_on=events.waiting_on(thread, wait, item.now_ns),
            wait=wait,
        )
        return [*lines, found | {"cause": events.cause_event(cause), "chain": []}]

    def _lookup_ends(self, item: items.Item, lookup: Lookup) -> list[Event]:
        name: Name = ("lookup", lookup.key, lookup.start_ns)
        tracked = self._tracker.ends(name, lookup.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        self._remember_id((lookup.key, lookup.start_ns), tracked.id)
        _, last_cause = self._last.pop(name, (None, None))
        cause = judge.judge(self._situation(item.now_ns, lookup, None, None))
        cause = _more_telling(cause, last_cause, lookup)
        found = self._about(item, "lookup", lookup, _end_message(lookup, cause))
        found["lookup"] = events.lookup_event(
            lookup,
            identity=tracked.id,
            started_wall_ns=tracked.started_wall_ns,
            resolver=self._resolver(lookup.pid),
            now_ns=item.now_ns,
        )
        if cause is not None:
            found["cause"] = events.cause_event(cause)
        return [found | {"chain": []}]

    def _situation(
        self, now_ns: int, lookup: Lookup, thread: dict[str, Any] | None, resolv_conf: dict[str, Any] | None
    ) -> Situation:
        coverage = self._coverage(lookup.pid)
        return Situation(
            now_ns=now_ns,
            lookup=lookup,
            thread=thread,
            resolv_conf=resolv_conf,
            resolver="unknown" if lookup.is_wire else self._resolver(lookup.pid),
            wire=bool(coverage.get("wire", True)),
            lost=self._losses.hiding_since(lookup.start_ns),
            missing=tuple(coverage.get("missing", ())),
        )

    @staticmethod
    def _open_message(now_ns: int, lookup: Lookup, cause: Cause) -> str:
        age = events.seconds(now_ns - lookup.start_ns)
        return f"lookup of {events.name_text(lookup) or 'a name'} in flight for {age}: {cause.summary}"

    def _remember_id(self, place: tuple[int, int], identity: str) -> None:
        self._ids[place] = identity
        if len(self._ids) > REMEMBERED_IDS:
            self._ids.popitem(last=False)

    # Connects.

    def _connect_is_open(self, item: items.Scan, connect: Connect) -> list[Event]:
        if connect.status != "in_flight":
            return []
        name: Name = ("connect", connect.key, connect.start_ns)
        tracked = self._tracker.is_open(name, connect.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        thread = item.threads.get(str(connect.tid))
        cause = judge.judge(self._connect_situation(item.now_ns, connect, thread)) or UNEXPLAINED
        self._last[name] = (connect, cause)
        age = events.seconds(item.now_ns - connect.start_ns)
        message = f"connect to {events.connect_target(connect)} in flight for {age}: {cause.summary}"
        found = self._about(item, "connect_stuck", connect, message)
        found["connect"] = events.connect_event(
            connect,
            identity=tracked.id,
            lookup_id=self._lookup_id(connect),
            now_ns=item.now_ns,
            update=tracked.updates,
        )
        return [found | {"cause": events.cause_event(cause)}]

    def _connect_ends(self, item: items.Item, connect: Connect) -> list[Event]:
        name: Name = ("connect", connect.key, connect.start_ns)
        tracked = self._tracker.ends(name, connect.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        self._last.pop(name, None)
        took = events.seconds((connect.end_ns or item.now_ns) - connect.start_ns)
        verb = {"ok": "took", "failed": "failed after"}.get(connect.status, "was given up after")
        found = self._about(
            item, "connect", connect, f"connect to {events.connect_target(connect)} {verb} {took}"
        )
        found["connect"] = events.connect_event(
            connect, identity=tracked.id, lookup_id=self._lookup_id(connect), now_ns=item.now_ns
        )
        return [found]

    def _connect_situation(self, now_ns: int, connect: Connect, thread: dict[str, Any] | None) -> Situation:
        coverage = self._coverage(connect.pid)
        return Situation(
            now_ns=now_ns,
            connect=connect,
            thread=thread,
            resolver=self._resolver(connect.pid),
            wire=bool(coverage.get("wire", True)),
            lost=self._losses.hiding_since(connect.start_ns),
            missing=tuple(coverage.get("missing", ())),
        )

    def _lookup_id(self, connect: Connect) -> str | None:
        """The id of the lookup that gave this address; one that had no line of its own gets its id now."""
        if connect.lookup_key is None or connect.lookup_start_ns is None:
            return None
        place = (connect.lookup_key, connect.lookup_start_ns)
        if place not in self._ids:
            self._remember_id(place, self._tracker.new_id("lookup", connect.pid))
        return self._ids[place]

    # Ends that were lost, losses, numbers.

    def _end_is_lost(self, item: items.Scan, name: Name) -> list[Event]:
        """Every stuck line is followed by one last line, also when the kernel's word of the end was lost."""
        thing, cause = self._last.pop(name, (None, None))
        if thing is None:
            return []
        tracked = self._tracker.ends(name, thing.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        if isinstance(thing, Connect):
            target = events.connect_target(thing)
            found = self._about(item, "connect", thing, f"connect to {target} has ended; how was lost")
            found["connect"] = events.connect_event(
                thing,
                identity=tracked.id,
                lookup_id=self._lookup_id(thing),
                now_ns=item.now_ns,
                lost_end=True,
            )
            return [found]
        text = f"lookup of {events.name_text(thing) or 'a name'} has ended; how was lost"
        found = self._about(item, "lookup", thing, text)
        found["lookup"] = events.lookup_event(
            thing,
            identity=tracked.id,
            started_wall_ns=tracked.started_wall_ns,
            resolver=self._resolver(thing.pid),
            now_ns=item.now_ns,
            lost_end=True,
        )
        if cause is not None:
            found["cause"] = events.cause_event(cause)
        return [found | {"chain": []}]

    def _lost_events(self, item: items.Item, added: dict[str, int]) -> list[Event]:
        since = rfc3339(self._started.wall_ns if self._started else item.wall_ns)
        lines = []
        for stage, by in added.items():
            found = self._base("lost", item, f"{by} lost ({stage}): {REMEDIES.get(stage, '')}")
            remedy = REMEDIES.get(stage, "ebpfdns doctor")
            lines.append(found | {"lost": {"where": stage, "count": by, "since": since, "remedy": remedy}})
        return lines

    def _stats_event(self, item: items.Stats) -> Event:
        counts = item.counters
        lookups = {
            "started": counts[Counter.LOOKUPS_STARTED],
            "ok": counts[Counter.LOOKUPS_OK],
            "failed": counts[Counter.LOOKUPS_FAILED],
            "abandoned": counts[Counter.LOOKUPS_ABANDONED],
            "stuck": self._tracker.stuck["lookup"],
        }
        lookups["in_flight"] = max(
            lookups["started"] - lookups["ok"] - lookups["failed"] - lookups["abandoned"], 0
        )
        connects = {
            "started": counts[Counter.CONNECTS_STARTED],
            "ok": counts[Counter.CONNECTS_OK],
            "failed": counts[Counter.CONNECTS_FAILED],
            "abandoned": counts[Counter.CONNECTS_ABANDONED],
            "stuck": self._tracker.stuck["connect"],
        }
        ended = connects["ok"] + connects["failed"] + connects["abandoned"]
        connects["in_flight"] = max(connects["started"] - ended, 0)
        queries = {
            "sent": counts[Counter.QUERIES_SENT],
            "answered": counts[Counter.QUERIES_ANSWERED],
            "unanswered": counts[Counter.QUERIES_UNANSWERED],
        }
        rows = [events.histogram(row, boundary.HISTOGRAM_SHIFT) for row in item.histograms]
        waits = {kind.name.lower(): rows[Latency.WAIT + kind] for kind in WaitKind}
        message = "{started} lookups: {ok} ok, {failed} failed, {stuck} stuck, {in_flight} in flight".format(
            **lookups
        )
        return self._base("stats", item, message) | {
            "stats": {
                "since": rfc3339(self._started.wall_ns if self._started else item.wall_ns),
                "targets": len(self._targets),
                "lookups": lookups,
                "connects": connects,
                "queries": queries,
                "latency_ms": {
                    "lookup": rows[Latency.LOOKUP],
                    "connect": rows[Latency.CONNECT],
                    "query": rows[Latency.QUERY],
                    "event_loop_wait": waits,
                },
                "lost": dict(self._losses.totals),
                "agent": item.agent,
            }
        }

    # What lines have in common.

    def _base(self, kind: str, item: items.Item, message: str) -> Event:
        return events.base(kind, item.wall_ns, self._started.host if self._started else "", message)

    def _about(self, item: items.Item, kind: str, thing: Lookup | Connect, message: str) -> Event:
        found = self._base(kind, item, message)
        target = self._targets.get(thing.pid)
        unknown = {"pid": thing.pid, "executable": {"name": None, "path": None}, "start_time": None}
        found["process"] = target.process if target else unknown
        if not (isinstance(thing, Lookup) and thing.is_wire):
            found["thread"] = {"id": thing.tid, "name": printable(thing.comm) if thing.comm else None}
        return found | (target.around if target else {})

    def _coverage(self, pid: int) -> dict[str, Any]:
        target = self._targets.get(pid)
        return target.coverage if target else {}

    def _resolver(self, pid: int) -> str:
        target = self._targets.get(pid)
        return target.resolver if target else "unknown"

    def _redacted(self, thing: Thing) -> Thing:
        """The same with its names hashed, when that was asked for: before anything else can see them."""
        key = self._started.redact_key if self._started else None
        if key is None:
            return thing

        def hashed(name: bytes | None) -> bytes | None:
            if not name:
                return name
            plain = name.lower().rstrip(b".")
            return b"redacted-" + hmac.new(key.encode(), plain, hashlib.sha256).hexdigest()[:16].encode()

        if isinstance(thing, Connect):
            return replace(thing, lookup_name=hashed(thing.lookup_name))
        queries = tuple(replace(query, name=hashed(query.name)) for query in thing.queries)
        address = None if thing.address is None else (hashed(thing.address.encode()) or b"").decode()
        return replace(thing, name=hashed(thing.name), address=address, queries=queries)


#: When no rule, not even `unknown`, has a word for an open thing.
UNEXPLAINED = Cause(
    id="unknown",
    confidence="possible",
    summary="It waits, and what was observed does not say why.",
    evidence=(Evidence("blocked_in_syscall", "it has not ended", {}),),
    remedy="ebpfdns doctor",
)


def _more_telling(cause: Cause | None, last: Cause | None, lookup: Lookup) -> Cause | None:
    """The end's own cause; the last one told while it was stuck where the end alone says nothing."""
    if cause is None or (cause.id == "unknown" and last is not None):
        return last if last is not None or lookup.status == "ok" else cause
    return cause


def _end_message(lookup: Lookup, cause: Cause | None) -> str:
    name = events.name_text(lookup) or "a name"
    took = events.seconds((lookup.end_ns or lookup.start_ns) - lookup.start_ns)
    verb = {"ok": "took", "failed": "failed after"}.get(lookup.status, "was abandoned after")
    why = f": {cause.summary}" if cause is not None else ""
    return f"lookup of {name} {verb} {took}{why}"


def _lookup_of_call(call: items.OpenCall) -> Lookup:
    return decode.open_call(call.key, call.call, call.name, call.thread_name)
