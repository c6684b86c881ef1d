"""Which form goes with which output: JSON or plain text to anything, live blocks to a terminal.

Owns: that choice, and when there are colours. Must not know: events, commands.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ebpfdns.publish.output import Output
from ebpfdns.publish.rendering import renderer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ebpfdns.publish.line_output import LineOutput
    from ebpfdns.publish.rendering import Render

STANDARD_OUTPUT = 1
#: Terminals that know no control sequences.
DUMB = frozenset({"dumb", "unknown"})


def open_way_out(form: str, target: str) -> tuple[Render, LineOutput]:
    """The renderer and its output: `-` is standard output, anything else a path."""
    if form == "pretty" and target == "-" and is_screen():
        from ebpfdns.publish.terminal import Terminal  # noqa: PLC0415 - it brings rich

        terminal = Terminal(STANDARD_OUTPUT, coloured=wants_colours(os.environ, is_terminal=True))
        return terminal.accept, terminal
    return renderer(form_of_lines(form, is_terminal=False)), Output.open(target)


def is_screen() -> bool:
    """Whether blocks can be updated in place on standard output."""
    return os.isatty(STANDARD_OUTPUT) and os.environ.get("TERM", "dumb") not in DUMB


def form_of_lines(form: str, *, is_terminal: bool) -> str:
    """The form of appended lines."""
    is_coloured = form == "pretty" and wants_colours(os.environ, is_terminal=is_terminal)
    return "coloured" if is_coloured else form


def wants_colours(environment: Mapping[str, str], *, is_terminal: bool) -> bool:
    """NO_COLOR forbids, FORCE_COLOR demands; else a terminal that can."""
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return is_terminal and environment.get("TERM", "dumb") not in DUMB
