"""`ebpfdns inspect --pid PID`: one look, no tracing: how a process resolves names, and what it waits for now.

Owns: the options and the choice of the form. Must not know: how facts are read, or what follows from them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.explain.report import report
from ebpfdns.observe import inspection

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = """
\b
Examples:
  sudo ebpfdns inspect --pid 4242
  sudo ebpfdns inspect --pid 4242 --format json | jq '.findings[].text'
"""


@click.command("inspect", short_help="How a process resolves names, and what it waits for.", epilog=EXAMPLES)
@click.option("--pid", type=click.IntRange(min=1), required=True, help="The process to look at.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["pretty", "json"]),
    help="pretty: for people, the default on a terminal; json: one object, the default elsewhere.",
)
def command(*, pid: int, form: str | None) -> None:
    """Take one look at a process: no BPF, no packets, nothing is changed.

    Says which resolver it uses and why, what its own resolv.conf and nsswitch.conf say, what contradicts
    what, and what each of its threads waits for. Root sees all; others see it of their own processes.
    """
    try:
        found = report(inspection.inspect(pid))
    except PermissionError as error:
        raise HostCannotTraceError(
            f"process {pid} may not be looked at: {error.strerror}",
            remedy=f"sudo ebpfdns inspect --pid {pid}",
        ) from error
    if form == "pretty" or (form is None and sys.stdout.isatty()):
        _show(found)
    else:
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.flush()


def _show(found: Mapping[str, Any]) -> None:
    """With colours on a terminal only: rich knows, and honours NO_COLOR."""
    from rich.console import Console  # noqa: PLC0415 - only for people

    from ebpfdns.publish.inspection_page import page  # noqa: PLC0415

    Console(highlight=False, soft_wrap=False).print(page(found))
