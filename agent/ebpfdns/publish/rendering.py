"""Event dicts become bytes: JSON lines for programs, or plain text for people.

Owns: the choice between them. Must not know: where the bytes go.
A terminal is not here: there a block is updated in place (`terminal.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.publish.lines import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Render = Callable[[Iterable[dict[str, Any]]], list[bytes]]


def json_lines(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """One JSON object a line."""
    return [line(event) for event in events]


def pretty_lines(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """For people: what happens, and what to do. Nothing is told here that is not in the JSON lines."""
    from ebpfdns.publish.plain import text  # noqa: PLC0415 - for programs it is not needed

    return [text(event).encode() for event in events]


def coloured_lines(events: Iterable[dict[str, Any]]) -> list[bytes]:
    """The same in colours, for a pipe whose reader shows them (FORCE_COLOR)."""
    from ebpfdns.publish.styled import Style, appended  # noqa: PLC0415 - it brings rich

    style = Style(columns=100, coloured=True)
    return ["".join(f"{row}\n" for row in appended(event, style)).encode() for event in events]


RENDERERS: dict[str, Render] = {"json": json_lines, "pretty": pretty_lines, "coloured": coloured_lines}


def renderer(form: str) -> Render:
    """The renderer of this name."""
    return RENDERERS[form]
