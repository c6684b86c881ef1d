"""`ebpfdns run -- CMD`: a command that is traced from its first instruction on, for CI.

Owns: its options, the order of things, and which exit code is whose.
Must not know: how a command is held and released, how anything is traced.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ebpfdns import logs
from ebpfdns.commands import shared_options
from ebpfdns.commands.tracing import open_kernel
from ebpfdns.errors import EbpfdnsError, NoSuchTargetError, UsageError
from ebpfdns.publish.closing import Closing
from ebpfdns.publish.lines import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.command import Command
    from ebpfdns.observe.exec_gate import ExecGate
    from ebpfdns.publish.rendering import Render

STUCK_CODE = 5
LONGEST_COMMAND = 80
NS_PER_S = 1_000_000_000
#: What the closing summary tells anyway: not between the lines that a command writes to the same place.
ONLY_IN_FILES = frozenset({"target", "stats"})
#: glibc asks for nscd whenever it looks a user up; hardly anybody has one.
NO_SUCH_DAEMON = frozenset({"ENOENT", "ECONNREFUSED"})

EXAMPLES = """
\b
Examples:
  sudo ebpfdns run -- getent hosts example.com
  sudo ebpfdns run --user "$USER" --fail-on-stuck -- go test ./...
  sudo ebpfdns run --output dns.jsonl --junit dns.xml -- make test
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What only this command has, beside what all have that trace."""

    argv: tuple[str, ...]
    children: bool
    output: str | None
    user: str | None
    fail_on_stuck: bool
    junit: Path | None
    summary: bool
    hold: bool

    @property
    def title(self) -> str:
        """The command in short."""
        text = shlex.join(self.argv)
        return text if len(text) <= LONGEST_COMMAND else f"{text[: LONGEST_COMMAND - 1]}…"


@click.command("run", epilog=EXAMPLES, context_settings={"allow_interspersed_args": False})
@shared_options.tracing(
    click.option(
        "--children/--no-children", default=True, show_default=True, help="Follow what it starts, too."
    ),
    click.option("--output", help="File for the lines (- is stdout).  [default: stderr]"),
)
@click.option("--user", metavar="NAME", help="Run it as this user, with that user's HOME.")
@click.option(
    "--hold/--no-hold",
    default=True,
    show_default=True,
    help="Hold each program it starts until that is probed.",
)
@click.option("--fail-on-stuck", is_flag=True, help=f"End with {STUCK_CODE} when a lookup got stuck.")
@click.option(
    "--junit", type=click.Path(path_type=Path), help="JUnit XML: a failed case for each stuck lookup."
)
@click.option("--summary/--no-summary", default=True, show_default=True, help="The closing words on stderr.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARG]...")
def command(
    *,
    argv: tuple[str, ...],
    children: bool,
    output: str | None,
    user: str | None,
    fail_on_stuck: bool,
    junit: Path | None,
    summary: bool,
    hold: bool,
    **shared: Any,  # noqa: ANN401 - as click hands them over
) -> int:
    """Start CMD already traced, and what it starts too.

    Its exit code is CMD's own (128+N for a signal). Signals, terminal and stdout are CMD's, untouched.
    """
    tracing = shared_options.Tracing(**shared)
    wanted = Wanted(argv, children, output, user, fail_on_stuck, junit, summary, hold)
    return _run(wanted, tracing)


def _run(wanted: Wanted, tracing: shared_options.Tracing) -> int:
    """The command is forked first, before there are threads, and let go last; the exit code."""
    from ebpfdns.observe import program_files, users  # noqa: PLC0415 - `ebpfdns --help` needs none of it
    from ebpfdns.observe.command import Command  # noqa: PLC0415

    environment = program_files.own_environment()
    user = None if wanted.user is None else users.find(wanted.user)
    if user is not None:
        environment = user.environment(environment)
        if os.geteuid() != 0 and os.geteuid() != user.uid:
            raise UsageError("only root may run a command as somebody else", remedy="leave --user out")
    path = program_files.found_command(wanted.argv[0], environment)
    report = None if wanted.junit is None else _opened(wanted.junit)
    closing, started_ns, started = Closing(), time.monotonic_ns(), rfc3339(time.time_ns())
    wants_gate = wanted.children and wanted.hold
    with Command(wanted.argv, environment, path, user, wants_own_mounts=wants_gate) as child:
        try:
            _trace(child, program_files.running_program(path), wanted, tracing, closing)
        except NoSuchTargetError:  # killed before it ran: Ctrl-C at once
            if not child.has_ended():
                raise
        code = child.wait()
        failure = child.failure()
    if failure is not None:
        raise failure
    if wanted.summary:
        _say(closing, wanted.title, code)
    if report is not None:
        from ebpfdns.publish import junit  # noqa: PLC0415 - it brings an XML library

        lasted_s = (time.monotonic_ns() - started_ns) / NS_PER_S
        title, host = shlex.join(wanted.argv), socket.gethostname()
        _write(
            report, junit.document(closing, command=title, host=host, started=started, duration_s=lasted_s)
        )
    return STUCK_CODE if wanted.fail_on_stuck and closing.stuck_lookups else code


def _trace(
    child: Command, path: str, wanted: Wanted, tracing: shared_options.Tracing, closing: Closing
) -> None:
    """From the first probe to the last, the command's whole life in between."""
    from ebpfdns.observe.recording import Recorder  # noqa: PLC0415 - `ebpfdns --help` needs none of it
    from ebpfdns.observe.session import Session  # noqa: PLC0415
    from ebpfdns.observe.target import Target  # noqa: PLC0415
    from ebpfdns.publish.ways_out import open_way_out_beside  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        # Probes by inode, not by process: what the command runs later has them from its first instruction on.
        kernel = open_kernel(stack, tracing, filter_calls=True, follow_children=wanted.children)
        render, lines = open_way_out_beside(tracing.form, wanted.output)
        stack.callback(lines.close)
        recorder = None if tracing.record is None else Recorder(tracing.record)
        if recorder is not None:
            stack.callback(recorder.close)
        target = Target(child.pid)
        stack.callback(target.close)
        tells_all = wanted.output is not None or tracing.publish_all
        noting = _noting(closing, render, tells_all=tells_all)
        session = Session(kernel, tracing.options(), noting, lines, recorder)
        session.run_command(child, target, path, _gate(child, stack))


def _gate(child: Command, stack: contextlib.ExitStack) -> ExecGate | None:
    """What holds the programs that the command starts; None where that cannot be, or is not wanted."""
    from ebpfdns.observe.exec_gate import ExecGate  # noqa: PLC0415 - `ebpfdns --help` needs none of it

    if not child.has_own_mounts():
        return None
    try:
        return stack.enter_context(ExecGate(child.pid))
    except OSError as error:
        logs.info("programs are not held until they are probed", reason=str(error))
        return None


def _noting(closing: Closing, render: Render, *, tells_all: bool) -> Render:
    """Render events, having remembered what the closing summary is made of."""

    def noted(events: Iterable[dict[str, Any]]) -> list[bytes]:
        found = list(events)
        closing.take(found)
        return render([event for event in found if tells_all or _is_worth_telling(event)])

    return noted


def _is_worth_telling(event: dict[str, Any]) -> bool:
    """On the command's own standard error."""
    connect = event.get("connect") or {}
    is_no_daemon = event["event"] == "connect" and connect.get("purpose") == "nss"
    is_no_daemon = is_no_daemon and (connect.get("error") or {}).get("type") in NO_SUCH_DAEMON
    return event["event"] not in ONLY_IN_FILES and not is_no_daemon


def _say(closing: Closing, title: str, code: int) -> None:
    """For people; that nobody reads it is no failure of the command."""
    from ebpfdns.publish.ways_out import closing_text  # noqa: PLC0415 - not needed before the end

    if sys.stderr is None:  # it was closed when we began
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
        sys.stderr.buffer.write(closing_text(closing.blocks(title, code)))
        sys.stderr.flush()


def _write(report: Path, document: bytes) -> None:
    """The command has run: that its report finds no room takes nothing from its exit code."""
    try:
        report.write_bytes(document)
    except OSError as error:
        logs.warning("the JUnit file was not written", path=str(report), reason=error.strerror)


def _opened(path: Path) -> Path:
    """That it can be written is known before the command has run for an hour."""
    try:
        path.write_bytes(b"")
    except OSError as error:
        raise EbpfdnsError(
            f"cannot write to {path}: {error.strerror}", remedy="choose another --junit FILE"
        ) from error
    return path
