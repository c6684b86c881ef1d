"""Options that several commands have, spelled once.

Owns: their names, defaults and help. Must not know: what a command does with them.
"""

from __future__ import annotations

import click

#: lines for programs or for people
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(("json", "pretty")),
    default="json",
    show_default=True,
    help="Of the lines.",
)
