"""Event dicts become bytes: JSON lines for programs, or a few plain lines for people.

Owns: the choice between the two. Must not know: where the bytes go.
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
    return [_pretty(event).encode() for event in events]


def _pretty(event: dict[str, Any]) -> str:
    clock = event["ts"][11:23]
    text = f"{clock} {event['message']}\n"
    cause = event.get("cause")
    if cause and event["event"].endswith("_stuck"):
        text += "".join(f"{'':13}· {one['text']}\n" for one in cause["evidence"])
    if cause:
        remedy = cause["remedy"].removeprefix("Try: ")
        text += f"{'':13}cause: {cause['id']} ({cause['confidence']})\n{'':13}try:   {remedy}\n"
    return text


RENDERERS: dict[str, Render] = {"json": json_lines, "pretty": pretty_lines}


def renderer(form: str) -> Render:
    """The renderer of this name."""
    return RENDERERS[form]
