"""Blocks on paper: plain text for a pipe or a file, one line below the other, and no control characters.

Owns: indentation and labels. Must not know: colours, widths, terminals; what is in a block.
Long lines stay whole: a pager folds them, and grep finds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.publish.blocks import block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.publish.blocks import Block, Branch, Row
    from ebpfdns.publish.events import Event

INDENT = " " * 13
LABEL_WIDTH = 10


def text(event: Event) -> str:
    """The event in full: its time and its sentence, then a line for each thing there is to know."""
    return text_of(block(event))


def text_of(found: Block) -> str:
    """The same of a block; one that has no time begins with its sentence."""
    headline = f"{found.clock} {found.message}".lstrip()
    lines = [headline, *(line for row in found.rows for line in _row(row))]
    return "".join(f"{line}\n" for line in lines)


def _row(row: Row) -> Iterator[str]:
    """The label stands before its first line."""
    label = f"{INDENT}{row.label + ':':{LABEL_WIDTH}}"
    for line in _content(row):
        yield f"{label}{line}".rstrip()
        label = " " * len(label)


def _content(row: Row) -> Iterator[str]:
    if row.text:
        yield row.text
    yield from (f"· {point}" for point in row.points)
    widths = [max(map(len, column)) for column in zip(*_filled(row.table), strict=True)]
    for cells in _filled(row.table):
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True) if width)
    for branch in row.tree:
        yield from _tree(branch, "", "")


def _filled(table: tuple[tuple[str, ...], ...]) -> list[list[str]]:
    """The rows, all of one length."""
    columns = max(map(len, table), default=0)
    return [[*cells, *[""] * (columns - len(cells))] for cells in table]


def _tree(branch: Branch, first: str, rest: str) -> Iterator[str]:
    yield f"{first}{branch.text}"
    for number, below in enumerate(branch.below, 1):
        is_last = number == len(branch.below)
        yield from _tree(below, rest + ("└─ " if is_last else "├─ "), rest + ("   " if is_last else "│  "))
