"""The `ebpfdns` command: finds the sub-command, turns errors into messages and exit codes.

Owns: the click group and the one place where an error is printed and becomes an exit code.
Must not know: what any command does. Commands are imported only when called, so that
`ebpfdns --help` and `ebpfdns replay` work without bcc and start fast.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback

import click

from ebpfdns import __version__
from ebpfdns.errors import EbpfdnsError

#: name → module in ebpfdns.commands; a new command is one file there and one line here.
COMMANDS = {
    "attach": "attach",
    "demo": "demo",
    "doctor": "doctor",
    "inspect": "inspect",
    "replay": "replay",
    "run": "run",
    "schema": "schema",
}


DEBUG = "EBPFDNS_DEBUG"
REPORT = f"the same with {DEBUG}=1 in the environment, and report what it prints"


class LazyGroup(click.Group):
    """A click group whose sub-commands are modules, imported on first use."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the sub-command. That the reader of stdout went away (`… | head -1`) is a quiet, normal end."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:  # it was closed when we began
                sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise EbpfdnsError("there is no space left where it writes", remedy="df -h") from error
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names in the order of the table above."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import `ebpfdns.commands.NAME` and return its `command`; None when there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ebpfdns.commands.{COMMANDS[cmd_name]}")
        command: click.Command = module.command
        for option in command.params:
            _read_environment(cmd_name, option)
        return command


def _read_environment(command: str, option: click.Parameter) -> None:
    """Each option reads EBPFDNS_<COMMAND>_<OPTION>, as typed (click takes the name of its variable)."""
    long = next((name for name in option.opts if name.startswith("--")), None)
    if long is not None and option.envvar is None:
        option.envvar = f"EBPFDNS_{command}_{long[2:]}".upper().replace("-", "_")


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
        _say(str(error), error.remedy)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(0)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119 - a name, not a file
        _say(f"an error in ebpfdns itself: {type(error).__name__}: {error} ({where})", REPORT)
        sys.exit(EbpfdnsError.exit_code)
    sys.exit(result if isinstance(result, int) else 0)


def _say(what: str, remedy: str | None) -> None:
    """A message for a person: what happened, and what to type next."""
    click.echo(f"ebpfdns: {what}", err=True)
    if remedy:
        click.echo(f"  try: {remedy}", err=True)
