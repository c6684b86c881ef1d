"""`ebpfdns replay`: the same decisions again, from a recording.

Owns: reading a recording into the pipeline. Must not know: bcc, root, the kernel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ebpfdns.commands import shared_options
from ebpfdns.observe.recording import read_items
from ebpfdns.pipeline import Pipeline
from ebpfdns.publish.rendering import renderer

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
    pipeline = Pipeline()
    render = renderer(form)
    stream = sys.stdout.buffer
    for item in read_items(recording):
        for text in render(pipeline.feed(item)):
            stream.write(text)
    stream.flush()
