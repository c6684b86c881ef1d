"""`ebpfdns schema`: what an event line looks like, for machines and for people.

Owns: the command's options.
Must not know: any field.
"""

from __future__ import annotations

import click
import orjson

from ebpfdns.errors import UsageError
from ebpfdns.publish import reference
from ebpfdns.publish.schema import inspection, schema

EXAMPLES = """\
\b
Examples:
  ebpfdns schema > events.schema.json      to validate lines with
  ebpfdns schema | grep rx_queue_bytes     what a field means
  ebpfdns schema --markdown                as tables, with an example of each
"""


@click.command("schema", short_help="The JSON Schema of the event lines.", epilog=EXAMPLES)
@click.option("--markdown", is_flag=True, help="Print tables to read instead (this is docs/events.md).")
@click.option("--inspect", "of_inspect", is_flag=True, help="Of what `inspect --format json` prints.")
def command(*, markdown: bool, of_inspect: bool) -> None:
    """Print the JSON Schema (draft 2020-12) of the event lines."""
    if markdown and of_inspect:
        raise UsageError("--markdown is for the event lines", remedy="ebpfdns schema --inspect")
    if markdown:
        click.echo(reference.markdown(), nl=False)
        return
    click.echo(orjson.dumps(inspection.schema() if of_inspect else schema(), option=orjson.OPT_INDENT_2))
