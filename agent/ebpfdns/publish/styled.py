"""Blocks on a screen: folded to its width, with colours where it has them. Folding and colours are rich's.

Owns: what each part looks like. Must not know: file descriptors, which blocks are shown, what is in one.
Text is never read as markup: `[red]` in the name of a program is just that.
The layout is done here, in 0.1 ms a block: rich's tables and trees take 8 ms, while kernel buffers fill up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style as Look
from rich.text import Text

from ebpfdns.publish.blocks import block, cause_id, told_age_ms
from ebpfdns.publish.phrases import age

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.publish.blocks import Block, Branch, Row
    from ebpfdns.publish.events import Event

    Piece = tuple[str, str]  # text, and the name of its look

MARKS = {
    "stuck": ("●", "bold red"),
    "ok": ("✓", "green"),
    "failed": ("✗", "red"),
    "abandoned": ("✗", "yellow"),
    "lost": ("!", "yellow"),
    "news": ("·", "dim"),
}
LABEL_LOOKS = {"cause": "bold", "try": "bold green"}
TEXT_LOOKS = {"cause": "red", "try": "green", "who": "dim"}
INDENT = 2
#: Longer lines are hard to read; and a window can be made narrower, down to this, without breaking any.
MOST_COLUMNS = 120
#: In a narrower window nothing can be laid out.
FEWEST_COLUMNS = 24


@dataclass(frozen=True)
class Style:
    """What a screen can show."""

    columns: int
    coloured: bool

    @property
    def usable(self) -> int:
        """Columns to write in: the last one stays free, so that no terminal breaks the line by itself."""
        return max(min(self.columns - 1, MOST_COLUMNS), FEWEST_COLUMNS)

    @property
    def is_too_narrow(self) -> bool:
        """Whether a block would not fit."""
        return self.columns <= FEWEST_COLUMNS


def appended(event: Event, style: Style, *, in_full: bool = True) -> list[str]:
    """The lines of an event that will not change any more."""
    found = block(event)
    if not in_full and found.rows:
        words = f"{found.message} ({cause_id(event)})" if found.verdict else found.message
        return list(_headlines(found, words, style))
    return [*_headlines(found, _aged(found, told_age_ms(event)), style), *body(found, style)]


def lines_of(found: Block, style: Style) -> list[str]:
    """A block that will not change any more, in full."""
    return [*_headlines(found, found.title, style), *body(found, style)]


def headline(found: Block, age_ms: float | None, style: Style) -> str:
    """One line: what it is, and its age so far."""
    tail = _age_text(age_ms) if found.aged else ""
    mark, look = MARKS.get(found.state, MARKS["news"])
    room = style.usable - len(mark) - 1 - len(tail)
    clock = f"{found.clock} " if cell_len(found.title) + len(found.clock) < room else ""
    title = _short(found.title, room - len(clock))
    return _line([(f"{mark} ", look), (clock, "dim"), (f"{title}{tail}", "bold")], style)


def verdict(found: Block, style: Style) -> str:
    """One line: why."""
    return _line([(_short(f"  {found.verdict or 'no cause found yet'}", style.usable), "bold")], style)


def remark(words: str, style: Style) -> str:
    """One line about what is not shown."""
    return _line([(_short(words, style.usable), "yellow")], style)


def body(found: Block, style: Style) -> list[str]:
    """Everything below the headline."""
    why = _fold(found.verdict, style.usable - INDENT) if found.verdict else []
    lines = [_line([(" " * INDENT + words, "bold")], style) for words in why]
    label_width = max((len(row.label) for row in found.rows), default=0) + 1
    room = style.usable - INDENT - label_width
    for row in found.rows:
        label = row.label
        for words in _content(row, room):
            named = f"{'':{INDENT}}{label:{label_width}}"
            pieces = [(named, LABEL_LOOKS.get(row.label, "dim")), (words, TEXT_LOOKS.get(row.label, ""))]
            lines.append(_line(pieces, style))
            label = ""
    return lines


def _aged(found: Block, age_ms: float | None) -> str:
    return found.title + (_age_text(age_ms) if found.aged else "")


def _age_text(age_ms: float | None) -> str:
    return ", age not known" if age_ms is None else f", {age(age_ms)}"


def _headlines(found: Block, words: str, style: Style) -> Iterator[str]:
    """As many lines as it takes."""
    mark, look = MARKS.get(found.state, MARKS["news"])
    clock = f"{found.clock} " if found.clock else ""
    words_look = "bold" if found.rows and found.state != "news" else ""
    first, *more = _fold(f"{clock}{words}", style.usable - 2)
    yield _line([(f"{mark} ", look), (first[: len(clock)], "dim"), (first[len(clock) :], words_look)], style)
    yield from (_line([(f"  {rest}", words_look)], style) for rest in more)


def _content(row: Row, room: int) -> Iterator[str]:
    if row.text:
        yield from _fold(row.text, room)
    for point in row.points:
        yield from _hanging("• ", "  ", point, room)
    if row.table:
        for cells in _aligned(row.table):
            yield from _hanging("", "  ", cells, room)
    for branch in row.tree:
        yield from _tree(branch, "", "", room)


def _aligned(table: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """The lines of a table; columns that are empty everywhere are left out."""
    columns = max(map(len, table))
    filled = [[*line, *[""] * (columns - len(line))] for line in table]
    widths = [max(map(cell_len, column)) for column in zip(*filled, strict=True)]
    for line in filled:
        cells = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True) if width
        )
        yield "  ".join(cells).rstrip()


def _tree(branch: Branch, first: str, rest: str, room: int) -> Iterator[str]:
    begins = rest + ("│  " if branch.below else "   ") if first else "  "
    yield from _hanging(first, begins, branch.text, room)
    for number, below in enumerate(branch.below, 1):
        is_last = number == len(branch.below)
        yield from _tree(
            below, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "), room
        )


def _hanging(first: str, rest: str, words: str, room: int) -> Iterator[str]:
    """Folded text whose first line begins in one way, and the others in another."""
    begin = first
    for line in _fold(words, max(room - max(len(first), len(rest)), 2)):
        yield f"{begin}{line}"
        begin = rest


def _fold(words: str, width: int) -> list[str]:
    """Lines of at most so many columns; between words where that is possible."""
    if cell_len(words) <= width:
        return [words]
    lines = Text(words, overflow="fold").wrap(_console(), width)
    return [line.plain.rstrip() for line in lines] or [""]


def _short(words: str, width: int) -> str:
    """One line of at most so many columns."""
    if cell_len(words) <= width:
        return words
    text = Text(words)
    text.truncate(width, overflow="ellipsis")
    return text.plain


def _line(pieces: list[Piece], style: Style) -> str:
    """The pieces in their looks; blanks at the end are left out."""
    while pieces and not pieces[-1][0].strip():
        pieces = pieces[:-1]
    if not style.coloured:
        return "".join(words for words, _ in pieces).rstrip()
    if pieces:
        pieces = [*pieces[:-1], (pieces[-1][0].rstrip(), pieces[-1][1])]
    return "".join(_look(name).render(words, color_system=ColorSystem.STANDARD) for words, name in pieces)


@lru_cache(maxsize=32)
def _look(name: str) -> Look:
    return Look.parse(name)


@lru_cache(maxsize=1)
def _console() -> Console:
    """What rich wants for folding; it writes nowhere."""
    return Console(width=MOST_COLUMNS, height=25, color_system=None, legacy_windows=False, _environ={})
