"""Which form goes with which output: JSON or plain text to anything, live blocks to a terminal.

Owns: that choice, and when there are colours. Must not know: events, commands.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ebpfdns.publish.output import Output
from ebpfdns.publish.rendering import renderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ebpfdns.publish.blocks import Block
    from ebpfdns.publish.line_output import LineOutput
    from ebpfdns.publish.rendering import Render

STANDARD_OUTPUT = 1
STANDARD_ERROR = 2
FALLBACK_COLUMNS = 100
#: Terminals that know no control sequences.
DUMB = frozenset({"dumb", "unknown"})


def open_way_out(form: str, target: str) -> tuple[Render, LineOutput]:
    """The renderer and its output: `-` is standard output, anything else a path."""
    if form == "pretty" and target == "-" and is_screen():
        from ebpfdns.publish.terminal import Terminal  # noqa: PLC0415 - it brings rich

        terminal = Terminal(STANDARD_OUTPUT, coloured=wants_colours(os.environ, is_terminal=True))
        return terminal.accept, terminal
    return renderer(form_of_lines(form, is_terminal=False)), Output.open(target)


def open_way_out_beside(form: str, target: str | None) -> tuple[Render, LineOutput]:
    """The same where standard output is another program's: standard error, unless a target is named.

    Nothing is updated in place: that program may write to the same terminal.
    """
    if target is not None:
        return renderer(form_of_lines(form, is_terminal=False)), Output.open(target)
    return renderer(form_of_lines(form, is_terminal=os.isatty(STANDARD_ERROR))), Output.to_stderr()


def closing_text(blocks: Iterable[Block]) -> bytes:
    """A summary for people, as standard error shows it best."""
    is_terminal = os.isatty(STANDARD_ERROR) and os.environ.get("TERM", "dumb") not in DUMB
    if not (is_terminal or wants_colours(os.environ, is_terminal=False)):
        from ebpfdns.publish.plain import text_of  # noqa: PLC0415 - the other way is not needed then

        return "".join(map(text_of, blocks)).encode("utf-8", "backslashreplace")
    from ebpfdns.publish.styled import Style, lines_of  # noqa: PLC0415 - it brings rich

    columns = os.get_terminal_size(STANDARD_ERROR).columns if is_terminal else FALLBACK_COLUMNS
    coloured = wants_colours(os.environ, is_terminal=is_terminal)
    style = Style(columns=columns or FALLBACK_COLUMNS, coloured=coloured)
    lines = (line for block in blocks for line in lines_of(block, style))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


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
