"""The `ebpfdns` command: finds the sub-command, turns errors into messages and exit codes.

Owns: the click group and the one place where an error is printed and becomes an exit code.
Must not know: what any command does. Commands are imported only when called, so that
`ebpfdns --help` and `ebpfdns replay` work without bcc and start fast.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from ebpfdns import __version__
from ebpfdns.errors import EbpfdnsError

#: name → module in ebpfdns.commands; a new command is one file there and one line here.
COMMANDS = {
    "attach": "attach",
    "demo": "demo",
    "doctor": "doctor",
    "replay": "replay",
    "schema": "schema",
}


class LazyGroup(click.Group):
    """A click group whose sub-commands are modules, imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import `ebpfdns.commands.NAME` and return its `command`; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ebpfdns.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EBPFDNS"},
    epilog="Start with `ebpfdns doctor`, then `sudo ebpfdns attach --pid PID`, or watch `sudo ebpfdns demo`.",
)
@click.version_option(__version__, prog_name="ebpfdns")
def cli() -> None:
    """Say why name resolution is stuck, while it is stuck."""


def main() -> None:
    """Run the command line; the only place that prints an error and chooses the exit code."""
    try:
        result = cli.main(standalone_mode=False)
    except EbpfdnsError as error:
        click.echo(f"ebpfdns: {error}", err=True)
        if error.remedy:
            click.echo(f"  try: {error.remedy}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(0)
    except BrokenPipeError:
        # The reader of stdout went away (`ebpfdns attach … | head -1`): a quiet, normal end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)
