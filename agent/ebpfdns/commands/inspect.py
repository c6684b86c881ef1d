"""`ebpfdns inspect --pid PID`: one look, no tracing: how a process resolves names, and what it waits for now.

Owns: the options and the choice of the form. Must not know: how facts are read, or what follows from them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import orjson

from ebpfdns.commands.durations import Duration
from ebpfdns.commands.names import Address, LookedUpName
from ebpfdns.errors import HostCannotTraceError
from ebpfdns.explain.report import report
from ebpfdns.observe import asking, inspection

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = """
\b
Examples:
  sudo ebpfdns inspect --pid 4242
  sudo ebpfdns inspect --pid 4242 --format json | jq '.findings[].text'
  sudo ebpfdns inspect --pid 4242 --name example.com   (sends questions)
"""

NS_PER_S = 1_000_000_000


@click.command("inspect", short_help="How a process resolves names, and what it waits for.", epilog=EXAMPLES)
@click.option("--pid", type=click.IntRange(min=1), required=True, help="The process to look at.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["pretty", "json"]),
    help="pretty: for people, the default on a terminal; json: one object, the default elsewhere.",
)
@click.option(
    "--name", type=LookedUpName(), help="Ask for this name by every way there is: this sends questions."
)
@click.option(
    "--server",
    "servers",
    type=Address(),
    multiple=True,
    help="With --name: ask this server, too, as one behind the local resolver.",
)
@click.option(
    "--timeout", type=Duration(), default="3s", show_default=True, help="With --name: for each answer."
)
def command(*, pid: int, form: str | None, name: str | None, servers: tuple[str, ...], timeout: int) -> None:
    """Take one look at a process: no BPF, no packets, nothing is changed.

    Says which resolver it uses and why, what its own resolv.conf and nsswitch.conf say, what contradicts
    what, and what each of its threads waits for. Root sees all; others see it of their own processes.

    With --name, and only then, questions are sent: from the network of the process, for this name, to its
    nameservers and to those behind a local stub, over UDP, TCP and TLS, with and without EDNS0. The answers
    stand side by side, with what they say together.
    """
    try:
        facts = inspection.inspect(pid)
        if name is not None:
            facts["asked"] = asking.ask_all_ways(pid, name, facts["resolv_conf"], servers, timeout / NS_PER_S)
        found = report(facts)
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
