"""What `run` says at its end: how many lookups there were, which got stuck, why, and what helps.

Owns: what is remembered of the event lines for that, and its text.
Must not know: files, terminals, exit codes.
Lookups of one name that were stuck for one reason are told of once, with their number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ebpfdns.publish import blocks
from ebpfdns.publish.phrases import age, clean, connect_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ebpfdns.publish.blocks import Block, Row
    from ebpfdns.publish.events import Event

#: Told of in full, at most; the others are counted.
MOST_THINGS = 1000
MOST_SHOWN = 12
#: A cause of what was not stuck is told of when there is no other.
ROWS = ("cause", "because", "try", "error", "queries", "behind", "who")


@dataclass(slots=True)
class Stuck:
    """A lookup or connect that was stuck: its first stuck line, its latest, and its last line if it ended."""

    first: Event
    latest: Event
    ended: Event | None = None

    @property
    def kind(self) -> str:
        """`lookup` or `connect`."""
        return blocks.STUCK_KINDS[self.first["event"]]

    @property
    def cause(self) -> dict[str, Any]:
        """Why: as said in the end, else while it lasted."""
        last = self.ended or {}
        found: dict[str, Any] = last.get("cause") or self.latest.get("cause") or {}
        return found

    @property
    def last(self) -> Event:
        """The line that tells most of it: the last that has a cause."""
        return self.ended if self.ended is not None and self.ended.get("cause") else self.latest

    @property
    def lasted_ms(self) -> float | None:
        """How long, as far as it is known."""
        thing = (self.ended or self.latest).get(self.kind) or {}
        lasted: float | None = thing.get("duration_ms", thing.get("elapsed_ms"))
        return lasted

    @property
    def what(self) -> str:
        """In words."""
        thing = self.first.get(self.kind) or {}
        return (
            f"lookup of {clean(thing.get('name')) or 'a name'}"
            if self.kind == "lookup"
            else connect_target(thing)
        )

    @property
    def program(self) -> str:
        """Whose."""
        executable = (self.last.get("process") or {}).get("executable") or {}
        return clean(executable.get("name")) or "a program"

    @property
    def how_it_ended(self) -> str:
        """In words."""
        if self.ended is None:
            return "had not ended when tracing did"
        thing = self.ended.get(self.kind) or {}
        status = {"ok": "then worked", "failed": "then failed", "abandoned": "was given up"}
        error = clean((thing.get("error") or {}).get("type"))
        return status.get(thing.get("status") or "", "has ended") + (f" with {error}" if error else "")


@dataclass(slots=True)
class Closing:
    """Give it every event; ask it at the end."""

    things: dict[str, Stuck] = field(default_factory=dict)
    stats: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, None] = field(default_factory=dict)
    still_running: int = 0
    stuck_lookups: int = 0

    def take(self, events: Iterable[Event]) -> None:
        """Remember what matters at the end."""
        for event in events:
            kind = event["event"]
            if kind in blocks.STUCK_KINDS:
                self._take_stuck(event)
            elif kind in blocks.ENDED_KINDS:
                self._take_ended(event)
            elif kind == "stats":
                self.stats = event["stats"]
            elif kind == "target":
                self._take_target(event["target"])

    def _take_stuck(self, event: Event) -> None:
        key = blocks.key(event) or ""
        known = self.things.get(key)
        if known is not None:
            known.latest = event
        elif len(self.things) < MOST_THINGS:
            self.things[key] = Stuck(event, event)
        kind = blocks.STUCK_KINDS[event["event"]]
        if kind == "lookup" and (event[kind].get("update") or 1) == 1:
            self.stuck_lookups += 1

    def _take_ended(self, event: Event) -> None:
        known = self.things.get(blocks.key(event) or "")
        if known is not None:
            known.ended = event

    def _take_target(self, target: dict[str, Any]) -> None:
        if target.get("role"):  # a daemon that was there before, and is beside it
            return
        if target["status"] == "detached":
            self.still_running += 1
        elif target["status"] == "attached" and len(self.missing) < MOST_SHOWN:
            self.missing |= dict.fromkeys(target["coverage"]["missing"])

    # At the end.

    def stuck(self, kind: str) -> list[Stuck]:
        """All that were stuck, in the order in which they were told of."""
        return [thing for thing in self.things.values() if thing.kind == kind]

    def blocks(self, command: str, code: int | None) -> list[Block]:
        """The summary: a block for the whole, and one for each reason."""
        groups: dict[tuple[str, str], list[Stuck]] = {}
        for thing in self.things.values():
            groups.setdefault((thing.what, clean(thing.cause.get("id"))), []).append(thing)
        shown = list(groups.values())[:MOST_SHOWN]
        rest = sum(map(len, list(groups.values())[MOST_SHOWN:]))
        found = [self._whole(command, code, rest)]
        return found + [_of_group(group) for group in shown]

    def _whole(self, command: str, code: int | None, rest: int) -> Block:
        counts = self.stats.get("lookups") or {}
        sentence = f"{_counted(counts.get('started', 0), 'lookup')}"
        sentence += _particulars(counts)
        connects = self.stuck("connect")
        sentence += f"; {_counted(len(connects), 'connect')} got stuck" if connects else ""
        state = "stuck" if self.things else "ok"
        ended = "" if code is None else f" {clean(command)} ended with {code}."
        message = f"ebpfdns: {sentence}.{ended}"
        rows = tuple(self._remarks(rest))
        return blocks.Block(clock="", state=state, message=message, title=message, rows=rows)

    def _remarks(self, rest: int) -> Iterator[Row]:
        if rest:
            yield blocks.Row("more", f"{rest} more were stuck; they stand in the lines")
        lost = self.stats.get("lost") or {}
        if lost:
            told = ", ".join(f"{clean(where)}: {count}" for where, count in lost.items())
            yield blocks.Row("lost", f"not everything was seen ({told})")
        if self.still_running:
            words = (
                "process that it started goes" if self.still_running == 1 else "processes that it started go"
            )
            yield blocks.Row("left", f"{self.still_running} {words} on, no longer traced")


def _particulars(counts: dict[str, int]) -> str:
    """How they went, without what there was none of."""
    if not counts.get("started"):
        return ""
    parts = [f"{counts[word]} {said}" for word, said in _WORDS if counts.get(word)]
    stuck = counts.get("stuck", 0)
    return ", " + ", ".join([*parts, f"{stuck} got stuck" if stuck else "none got stuck"])


_WORDS = (("ok", "ok"), ("failed", "failed"), ("abandoned", "given up"), ("in_flight", "in flight still"))


def _of_group(group: list[Stuck]) -> Block:
    """One thing, or several of a kind: the longest tells for all."""
    longest = max(group, key=lambda thing: thing.lasted_ms or 0)
    whole = blocks.block(longest.last)
    times = f"{len(group)} times " if len(group) > 1 else ""
    lasted = "" if longest.lasted_ms is None else f" for {'up to ' if times else ''}{age(longest.lasted_ms)}"
    programs = ", ".join(dict.fromkeys(thing.program for thing in group))
    title = f"{longest.what} ({programs}) was stuck {times}{lasted.strip()}, {longest.how_it_ended}"
    why = clean(longest.cause.get("summary"))
    rows = tuple(row for row in whole.rows if row.label in ROWS)
    message = f"{title}: {why}" if why else title
    return blocks.Block(clock="", state="stuck", message=message, title=title, verdict=why, rows=rows)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
