"""The middle, put together: items in, event lines (as dicts) out. Live and replay run this very code.

    item → decode → tracker (is it due? has it ended?) → situation → judge → event

Owns: the order of the steps, and what was last said of each open thing.
Must not know: bcc, clocks, files, sockets.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from ebpfdns.correlate import children, earlier, items
from ebpfdns.correlate.absences import Absences
from ebpfdns.correlate.behind import Behind
from ebpfdns.correlate.last_words import LastWords, Told
from ebpfdns.correlate.losses import REMEDIES, LossBook
from ebpfdns.correlate.redaction import Thing, redacted
from ebpfdns.correlate.refused_answers import chain_at_the_end
from ebpfdns.correlate.tracker import Name, Tracked, Tracker, name_of
from ebpfdns.diagnose import conclusion
from ebpfdns.explain import go_choice
from ebpfdns.model import decode
from ebpfdns.model.facts import Connect, Lookup, ProcessEvent, Wait
from ebpfdns.publish import event_loops, events, goroutine_wait, hop_events, sentences, totals
from ebpfdns.publish.lines import rfc3339
from ebpfdns.publish.surroundings import Surroundings
from ebpfdns.situations import Situations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Hop
    from ebpfdns.publish.events import Event

Raw = TypeVar("Raw")
Fact = TypeVar("Fact")

#: Until the recording says otherwise.
STUCK_AFTER_NS = 1_000_000_000


class Pipeline:
    """Feed it items in order; it answers with event dicts, ready to be written."""

    def __init__(self) -> None:
        self._started: items.Started | None = None
        self._tracker = Tracker(STUCK_AFTER_NS)
        self._losses = LossBook()
        self._loss_told_wall_ns: dict[str, int] = {}
        self._around = Surroundings()
        self._last = LastWords()
        self._behind = Behind()
        self._situations = Situations(self._around, self._losses, self._last, self._behind, self._redacted)
        self._absences = Absences(STUCK_AFTER_NS)
        self.execed: list[int] = []  # pids whose program changed: the owner of the loop takes them
        self.forked: list[int] = []

    # What the loop asks before it feeds a scan.

    def is_due(self, kind: str, key: int, start_ns: int, now_ns: int, *, at_once: bool = False) -> bool:
        """Whether an open thing wants a line now (so that it is worth a snapshot)."""
        return self._tracker.is_due((kind, key, start_ns), now_ns, at_once=at_once)  # type: ignore[arg-type]

    def next_due_ns(self, kind: str, key: int, start_ns: int) -> int:
        """When an open thing wants its next line."""
        return self._tracker.next_due_ns((kind, key, start_ns))  # type: ignore[arg-type]

    def is_stall_due(self, key: int, return_ns: int, now_ns: int) -> bool:
        """Whether a thread that is away from its event loop wants a line now, if something there is ready."""
        return self._absences.is_due(key, return_ns, now_ns)

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
        self._absences = Absences(item.stuck_after_ns)
        self._around.host = item.host
        return []

    def _on_attached(self, item: items.Attached) -> list[Event]:
        if item.role == "supporting":
            self._around.know_daemon(item)
            message = sentences.followed(item.process["executable"]["name"], item.pid)
            return [self._around.line_of_target(item, item, "attached", message)]
        if item.go:
            item = replace(item, coverage=item.coverage | go_choice.coverage(item.go))
        is_known = self._around.add(item)
        message = sentences.attached(item.process["executable"]["name"], item.pid, again=is_known)
        return [self._around.line_of_target(item, item, "attached", message)]

    def _on_gone(self, item: items.Gone) -> list[Event]:
        daemon = self._around.forget_daemon(item.pid)
        if daemon is not None:
            self._behind.forget(item.pid)
            message = sentences.gone(daemon.process["executable"]["name"], item.pid, item.status)
            return [self._around.line_of_target(item, daemon, item.status, message)]
        target = self._around.remove(item.pid)
        self._absences.forget(item.pid)
        if target is None:
            return []
        message = sentences.gone(target.process["executable"]["name"], item.pid, item.status)
        return [self._around.line_of_target(item, target, item.status, message)]

    def _on_frames(self, item: items.Frames) -> list[Event]:
        lines: list[Event] = []
        for fact in self._facts(item, decode.frame, item.frames, lines):
            if isinstance(fact, ProcessEvent):
                (self.execed if fact.change == "execed" else self.forked).append(fact.pid)
                if fact.change == "execed":
                    self._around.execed(fact.pid)
            elif fact.is_supporting:
                slow_after_ns = self._started.slow_after_ns if self._started else 0
                self._behind.has_ended(self._redacted(fact), slow_after_ns)
            else:
                thing = self._completed(item, fact) if isinstance(fact, Lookup) else fact
                lines += self._ends(item, self._redacted(thing))
        return lines

    def _on_scan(self, item: items.Scan) -> list[Event]:
        self._around.configured(item.resolv_confs, item.answers)
        self._around.decides_go(item.go)
        lines: list[Event] = []
        for lookup in self._facts(item, decode.lookup, item.lookups, lines):
            lines += self._is_open(item, self._redacted(self._completed(item, lookup)))
        for lookup in self._facts(item, _lookup_of_call, item.calls, lines):
            lines += self._is_open(item, self._redacted(self._completed(item, lookup)))
        for connect in self._facts(item, decode.connect, item.connects, lines):
            lines += self._is_open(item, self._redacted(connect))
        for lookup in self._facts(item, decode.lookup, item.expired_lookups, lines):
            lost = replace(self._redacted(lookup), status="abandoned", end_ns=item.now_ns)
            lines += self._ends(item, lost)
        for connect in self._facts(item, decode.connect, item.expired_connects, lines):
            lines += self._ends(item, replace(self._redacted(connect), status="abandoned"))
        for name in [] if item.vanished is None else self._tracker.vanish(item.vanished):
            lines += self._end_is_lost(item, name)
        return lines

    def _on_stalls(self, item: items.Stalls) -> list[Event]:
        lines: list[Event] = []
        for stall in item.stalls:
            for wait in self._facts(item, decode.wait, [stall.wait], lines):
                if wait is not None:
                    lines += self._stalls(item, stall, wait, lines)
        return lines

    def _stalls(self, item: items.Stalls, stall: items.Stall, wait: Wait, losses: list[Event]) -> list[Event]:
        """A line about an event loop that is not served."""
        unread = [self._redacted(one) for one in self._facts(item, decode.lookup, stall.lookups, losses)]
        stall = replace(stall, ready=event_loops.certain(stall, unread))
        if not stall.ready or wait.loop_return_ns is None:
            return []
        update = self._absences.tell(stall.key, wait.pid, wait.loop_return_ns, item.now_ns)
        if update is None:
            return []
        found = event_loops.stall_event(
            stall, wait, unread, now_ns=item.now_ns, wall_ns=item.wall_ns, update=update
        )
        held_up = event_loops.held_up(stall, unread)
        if held_up is not None:
            identity = self._tracker.identity(name_of(held_up), held_up.pid)
            found["lookup"] = {"id": identity, "name": events.name_text(held_up)}
        message = event_loops.message(found, stall.thread_name)
        line = self._around.line_of_thread(
            "event_loop_stall", item, (wait.pid, wait.tid, stall.thread_name or b""), message
        )
        return [line | {"event_loop": found}]

    def _on_children(self, item: items.Children) -> list[Event]:
        """Lookups of processes that are not traced themselves."""
        lines: list[Event] = []
        for child in item.lookups:
            self._around.know_child(child.pid, child.process)
            lookup = self._redacted(self._with(child.thread, children.lookup_of(child)))
            name = name_of(lookup)
            tracked = self._tracker.is_open(
                name, child.pid, item.now_ns, item.wall_ns, at_once=True, is_counted=False
            )
            if tracked is not None:
                lines.append(self._child_line(item, child, lookup, tracked))
        for child in item.ended:
            lines += self._ends(item, self._redacted(self._with(child.thread, children.ended(child))))
        return lines

    def _child_line(
        self, item: items.Children, child: items.ChildLookup, lookup: Lookup, tracked: Tracked
    ) -> Event:
        situation = replace(
            self._situations.of(item, lookup), thread=child.thread, parent=children.parent_of(child)
        )
        cause = conclusion.while_open(situation)
        self._last.keep(name_of(lookup), Told(tracked.id, lookup, cause))
        waiting_on = events.waiting_on(child.thread, None, item.now_ns)
        about = {"now_ns": item.now_ns, "update": tracked.updates, "wait": None, "waiting_on": waiting_on}
        message = sentences.in_flight(lookup, item.now_ns, cause)
        return self._line(item, "_stuck", lookup, tracked, message, cause, about)

    def _on_lost(self, item: items.Lost) -> list[Event]:
        return self._loss_lines(item, self._losses.update(item.now_ns, item.totals))

    def _on_stats(self, item: items.Stats) -> list[Event]:
        stuck = self._tracker.stuck
        counted = totals.counted(
            item.counters, stuck_lookups=stuck["lookup"], stuck_connects=stuck["connect"]
        )
        stats = {
            "since": rfc3339(self._start_wall_ns(item)),
            "targets": len(self._around),
            **counted,
            "latency_ms": totals.latencies(item.histograms),
            "lost": dict(self._losses.totals),
            "agent": item.agent,
        }
        return [self._around.line("stats", item, sentences.totals(counted["lookups"])) | {"stats": stats}]

    # Bytes.

    def _facts(
        self, item: items.Item, decoder: Callable[[Raw], Fact], raws: list[Raw], lines: list[Event]
    ) -> Iterator[Fact]:
        """What the bytes say; bytes that say nothing are a loss, told in `lines`."""
        for raw in raws:
            try:
                yield decoder(raw)
            except decode.DecodeError:
                self._losses.add(item.now_ns, "frame_bad", 1)
                lines += self._loss_lines(item, {"frame_bad": 1})

    def _completed(self, item: items.Item, lookup: Lookup) -> Lookup:
        """With what the look at its thread, and its last line, know of one that began before tracing."""
        if not lookup.before_attach:
            return lookup
        if lookup.is_of_go:
            shown = item.goroutines.get(str(lookup.key)) if isinstance(item, items.Scan) else None
            return earlier.completed_goroutine(lookup, shown, self._before(lookup))
        return self._with(item.threads.get(str(lookup.tid)) if isinstance(item, items.Scan) else None, lookup)

    def _with(self, facts: dict[str, Any] | None, lookup: Lookup) -> Lookup:
        return earlier.completed(lookup, facts, self._before(lookup))

    def _before(self, lookup: Lookup) -> Lookup | None:
        """The same lookup as its last line had it."""
        told = self._last.of(name_of(lookup))
        return told.thing if told and isinstance(told.thing, Lookup) else None

    def _is_wanted(self, thing: Lookup | Connect) -> bool:
        """Whether the end of one that may have been healthy, but began before tracing, is worth a line."""
        wants_all = self._started is not None and self._started.publish_all
        return wants_all or thing.status == "failed"

    def _redacted(self, thing: Thing) -> Thing:
        return redacted(thing, self._started.redact_key if self._started else None)

    # Lookups and connects.

    def _is_open(self, item: items.Scan, thing: Lookup | Connect) -> list[Event]:
        """A line for what is stuck and due."""
        if thing.status != "in_flight":  # it ended while the map was read; its frame says how
            return []
        name = name_of(thing)
        tracked = self._tracker.is_open(
            name, thing.pid, item.now_ns, item.wall_ns, at_once=thing.before_attach
        )
        if tracked is None:
            return []
        lines: list[Event] = []
        thread = item.threads.get(str(thing.tid))
        raw_wait = item.waits.get(str(thing.tid))
        waits = [] if raw_wait is None else [raw_wait]
        wait = next(self._facts(item, decode.wait, waits, lines), None)
        situation = self._situations.of(item, thing, item, wait)
        cause = conclusion.while_open(situation)
        self._last.keep(name, Told(tracked.id, thing, cause, situation.chain))
        about: dict[str, Any] = {"now_ns": item.now_ns, "update": tracked.updates}
        if isinstance(thing, Lookup):
            waiting_on = events.waiting_on(thread, wait, item.now_ns)
            if thing.api == "go":
                stack = item.goroutines.get(str(thing.key))
                waiting_on = goroutine_wait.waiting_on(thing, situation.process, stack)
            about |= {"wait": wait, "waiting_on": waiting_on}
        message = sentences.in_flight(thing, item.now_ns, cause)
        line = self._line(item, "_stuck", thing, tracked, message, cause, about, situation.chain)
        return [*lines, line]

    def _ends(self, item: items.Item, thing: Lookup | Connect) -> list[Event]:
        """The last line of something, unless it was written before."""
        name = name_of(thing)
        is_news = not thing.before_attach or self._tracker.was_told(name) or self._is_wanted(thing)
        tracked = self._tracker.ends(name, thing.pid, item.now_ns, item.wall_ns)
        if tracked is None or not is_news:
            return []
        told = self._last.take(name)
        thing = _with_name(thing, told)
        last_chain = told.chain if told else ()
        chain = chain_at_the_end(thing, last_chain, self._around.serves, self._behind.ended)
        situation = replace(self._situations.of(item, thing), chain=chain)
        cause = conclusion.at_the_end(situation, told.cause if told else None)
        message = sentences.ended(thing, item.now_ns, cause)
        return [self._line(item, "", thing, tracked, message, cause, {"now_ns": item.now_ns}, chain)]

    def _end_is_lost(self, item: items.Scan, name: Name) -> list[Event]:
        """Every stuck line is followed by one last line, also when the kernel's word of the end was lost."""
        told = self._last.take(name)
        if told is None:
            return []
        thing = told.thing
        tracked = self._tracker.ends(name, thing.pid, item.now_ns, item.wall_ns)
        if tracked is None:
            return []
        about = {"now_ns": item.now_ns, "lost_end": True}
        words = sentences.end_lost(thing)
        return [self._line(item, "", thing, tracked, words, told.cause, about, told.chain)]

    def _line(  # noqa: PLR0917 - what a line is made of
        self,
        item: items.Item,
        suffix: str,
        thing: Lookup | Connect,
        tracked: Tracked,
        message: str,
        cause: Cause | None,
        about: dict[str, Any],
        chain: tuple[Hop, ...] = (),
    ) -> Event:
        said = {} if cause is None else {"cause": events.cause_event(cause)}
        if isinstance(thing, Connect):
            found = self._around.line_about(f"connect{suffix}", item, thing, message)
            lookup_id = self._lookup_id(thing)
            found["connect"] = events.connect_event(thing, identity=tracked.id, lookup_id=lookup_id, **about)
            return found | said
        found = self._around.line_about(f"lookup{suffix}", item, thing, message)
        found["lookup"] = events.lookup_event(
            thing,
            identity=tracked.id,
            started_wall_ns=tracked.started_wall_ns,
            resolver=self._situations.resolver(thing),
            **about,
        )
        found["lookup"] |= go_choice.of_lookup(self._around.go(thing.pid), thing)
        hops = hop_events.chain_event(chain, thing, self._around.process_of, item.now_ns, is_over=not suffix)
        return found | said | {"chain": hops}

    def _lookup_id(self, connect: Connect) -> str | None:
        """The id of the lookup that gave this address."""
        if connect.lookup_key is None or connect.lookup_start_ns is None:
            return None
        return self._tracker.identity(("lookup", connect.lookup_key, connect.lookup_start_ns), connect.pid)

    # Losses.

    def _loss_lines(self, item: items.Item, added: dict[str, int]) -> list[Event]:
        lines = []
        for stage, count in added.items():
            remedy = REMEDIES.get(stage, "ebpfdns doctor")
            since_ns = self._loss_told_wall_ns.get(stage, self._start_wall_ns(item))
            self._loss_told_wall_ns[stage] = item.wall_ns
            lost = {"where": stage, "count": count, "since": rfc3339(since_ns), "remedy": remedy}
            message = sentences.lost(stage, count, remedy)
            lines.append(self._around.line("lost", item, message) | {"lost": lost})
        return lines

    def _start_wall_ns(self, item: items.Item) -> int:
        return self._started.wall_ns if self._started else item.wall_ns


def _with_name(thing: Lookup | Connect, told: Told | None) -> Lookup | Connect:
    """Its name, as it was told before, where the memory that it was in is gone."""
    before = told.thing if told else None
    if not isinstance(thing, Lookup) or not isinstance(before, Lookup):
        return thing
    if thing.name is None and thing.address is None:
        return replace(thing, name=before.name, name_cut=before.name_cut)
    return thing


def _lookup_of_call(call: items.OpenCall) -> Lookup:
    return decode.open_call(call.key, call.call, call.name, call.thread_name)
