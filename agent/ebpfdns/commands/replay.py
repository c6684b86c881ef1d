"""`ebpfdns replay`: the same decisions again, from a recording.

Owns: reading a recording into the pipeline. Must not know: bcc, root, the kernel.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from ebpfdns.commands import shared_options
from ebpfdns.observe.recording import read_items
from ebpfdns.pipeline import Pipeline
from ebpfdns.publish.rendering import renderer
from ebpfdns.publish.ways_out import STANDARD_OUTPUT, form_of_lines, is_screen, wants_colours

FLUSH_S = 60.0

EXAMPLES = """
\b
Examples:
  sudo ebpfdns attach --pid 4242 --record stuck.rec
  ebpfdns replay stuck.rec
"""


@click.command("replay", epilog=EXAMPLES)
@click.argument("recording", metavar="FILE", type=click.Path(path_type=Path))
@shared_options.FORMAT
def command(*, recording: Path, form: str) -> None:
    """Print the lines that were printed while FILE was recorded.

    Needs no root and no BPF. A recording that was cut off replays up to the cut.
    """
    if form == "pretty" and is_screen():
        _on_screen(recording)
        return
    pipeline = Pipeline()
    render = renderer(form_of_lines(form, is_terminal=False))
    stream = sys.stdout.buffer
    for item in read_items(recording):
        for text in render(pipeline.feed(item)):
            stream.write(text)
    stream.flush()


def _on_screen(recording: Path) -> None:
    """As in `attach`: a block for each stuck thing, which stays with its last state."""
    from ebpfdns.publish.terminal import Terminal  # noqa: PLC0415 - it brings rich

    pipeline = Pipeline()
    coloured = wants_colours(os.environ, is_terminal=True)
    terminal = Terminal(STANDARD_OUTPUT, coloured=coloured, live=False)
    with contextlib.closing(terminal):
        for item in read_items(recording):
            terminal.accept(pipeline.feed(item))
            while terminal.refusing and not terminal.closed:
                terminal.flush(1.0)
        terminal.flush(FLUSH_S)
