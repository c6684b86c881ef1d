"""What a screen has to show: the things that are stuck now, and what is to be appended above them.

    event → open (a block each, the latest word replaces the one before) → appended once it has ended

Owns: which is which, the limit of what waits, and how the open blocks share the room of a screen.
Must not know: terminals, threads, clocks. Times are arguments.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.publish import blocks, styled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.publish.blocks import Block
    from ebpfdns.publish.events import Event
    from ebpfdns.publish.styled import Style

#: Events that wait for a slow terminal; beyond, they are counted instead.
MOST_WAITING = 2048
#: Blocks at a time: more is no reading matter. The others are counted by cause.
MOST_BLOCKS = 12
#: A block takes two lines at the least: what, and why.
SHORT = 2
NS_PER_MS = 1_000_000


@dataclass
class Open:
    """Something that is stuck, as it was last told of."""

    event: Event
    block: Block
    seen_ns: int
    is_shown: bool = False
    drawn: tuple[Style, list[str]] | None = None

    def age_ms(self, now_ns: int) -> float | None:
        """How old it is by now."""
        told_ms = blocks.told_age_ms(self.event)
        return None if told_ms is None else told_ms + max(now_ns - self.seen_ns, 0) / NS_PER_MS

    def body(self, style: Style) -> list[str]:
        """Everything below the headline, drawn once for each word about it."""
        if self.drawn is None or self.drawn[0] != style:
            self.drawn = style, styled.body(self.block, style)
        return self.drawn[1]


@dataclass(frozen=True)
class Appended:
    """An event to be written once and left alone."""

    event: Event
    in_full: bool


class Board:
    """Take events; ask what to append and what to show below."""

    def __init__(self) -> None:
        self.open: dict[str, Open] = {}
        self.version = 0
        """Another one whenever there is something new."""
        self._waiting: deque[Appended] = deque()
        self._summary: Event | None = None
        self._dropped = 0
        self._is_refusing = False

    def take(self, events: Iterable[Event], now_ns: int) -> None:
        """Know of events."""
        self.version += 1
        for event in events:
            about = blocks.key(event)
            if about is not None and blocks.is_stuck(event):
                self._open(about, event, now_ns)
            elif event["event"] == "stats":
                self._summary = event  # the last one is the sum of all
            else:
                self._end(event, None if about is None else self.open.pop(about, None))

    def _open(self, about: str, event: Event, now_ns: int) -> None:
        known = self.open.get(about)
        shown = known is not None and known.is_shown
        self.open[about] = Open(event, blocks.block(event), now_ns, is_shown=shown)

    def _end(self, event: Event, was: Open | None) -> None:
        """A block stays, with its last state; of one among very many a line will do."""
        if was is None:
            is_healthy = blocks.key(event) is not None and not event.get("cause")
            self._append(Appended(event, in_full=not is_healthy))
            return
        if not event.get("cause"):  # what kept it is the last word there was on it
            event = event | {"cause": was.event.get("cause")}
        self._append(Appended(event, in_full=was.is_shown or len(self.open) < MOST_BLOCKS))

    def _append(self, entry: Appended) -> None:
        if self.refusing or len(self._waiting) >= MOST_WAITING:
            self._is_refusing = True
            self._dropped += 1
        else:
            self._waiting.append(entry)

    # What waits.

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def refusing(self) -> bool:
        """Whether the next event would be counted instead of kept: until half of the room is free again."""
        if self._is_refusing and len(self._waiting) <= MOST_WAITING // 2:
            self._is_refusing = False
        return self._is_refusing

    def take_dropped(self) -> int:
        """Events dropped since the last call, as soon as a word about it would be taken."""
        if self.refusing:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def next_lines(self, most: int) -> list[Appended]:
        """What is to be appended now."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def close(self) -> None:
        """What is open stays as it stands; then the sum of it all. None of it is left out."""
        self._waiting.extend(Appended(one.event, in_full=one.is_shown) for one in self.open.values())
        self.open.clear()
        if self._summary is not None:
            self._waiting.append(Appended(self._summary, in_full=True))
            self._summary = None


def region(things: list[Open], style: Style, rows: int, now_ns: int) -> list[str]:
    """What is stuck now, in at most so many rows: the oldest in full, as far as there is room."""
    if not things or rows < SHORT + 1 or style.is_too_narrow:
        return []
    count = min(len(things), MOST_BLOCKS, (rows - 1) // SHORT)
    shown, hidden = things[:count], things[count:]
    room = rows - SHORT * count - bool(hidden)
    lines: list[str] = []
    for thing in shown:
        thing.is_shown = True
        lines.append(styled.headline(thing.block, thing.age_ms(now_ns), style))
        full = thing.body(style)
        if len(full) > room + 1:
            cut = _cut(full, room, style) if thing is shown[0] else []
            lines += cut or [styled.verdict(thing.block, style)]
            room -= max(len(cut) - 1, 0)
        else:
            lines += full or [styled.verdict(thing.block, style)]
            room -= max(len(full) - 1, 0)
    if hidden:
        lines.append(styled.remark(_more(hidden), style))
    return lines


def _cut(full: list[str], room: int, style: Style) -> list[str]:
    """The beginning of a block that is longer than the screen: all of it is written when it ends."""
    if room < SHORT:
        return []
    return [*full[:room], styled.remark("  … (the window is too small for the rest)", style)]


def _more(hidden: list[Open]) -> str:
    causes = Counter(blocks.cause_id(one.event) for one in hidden)
    return f"and {len(hidden)} more stuck: " + ", ".join(f"{n} {cause}" for cause, n in causes.most_common())
