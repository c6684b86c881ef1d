"""`ebpfdns demo [FAULT]`: a stuck lookup you can watch, made on purpose in a private network namespace.

Owns: the options, and the order of what is shown: fault, the agent's lines with words, result, end.
Must not know: how a fault is made, how the agent is run (`lab.stage`), what a line means (`lab.story`).

Words and lines share stdout: they are the product together. Lines begin with `{`, words never do, and
`--format json` leaves the words out.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import click

from ebpfdns.commands import demo_go_test
from ebpfdns.commands.durations import Duration
from ebpfdns.errors import EbpfdnsError, HostCannotTraceError, UsageError
from ebpfdns.lab import story
from ebpfdns.lab.faults import FAULTS, Fault
from ebpfdns.lab.stage import AgentEndedError, Stage, plan_for

if TYPE_CHECKING:
    from collections.abc import Callable

    Say = Callable[[str], None]

#: A black-holed connect would go on for two minutes; this many reports of it are enough.
CONNECT_REPORTS = 2
LONGEST_STUCK_AFTER_NS = 2_000_000_000
NS_PER_S = 1_000_000_000


def _list_faults(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:  # noqa: FBT001
    """Print the faults and end, when `--list` was given."""
    if not is_asked or context.resilient_parsing:
        return
    width = max(map(len, FAULTS))
    for fault in FAULTS.values():
        click.echo(f"{fault.name:<{width}}  {fault.sentence}")
    click.echo(f"{demo_go_test.NAME:<{width}}  {demo_go_test.SENTENCE}")
    context.exit()


@click.command(
    "demo",
    short_help="A stuck lookup you can watch, made on purpose.",
    epilog="Watch `sudo ebpfdns demo`, then `sudo ebpfdns demo first_ns_dead`; `ebpfdns demo --list`: all.",
)
@click.argument("fault", type=click.Choice([*FAULTS, demo_go_test.NAME]), default="silent", metavar="[FAULT]")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list_faults, help="Name the faults."
)
@click.option(
    "--stuck-after",
    type=Duration(),
    default="1s",
    show_default=True,
    help="When a lookup counts as stuck, at most 2s: those of the demo end after 3 s.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["pretty", "json"]),
    default="pretty",
    show_default=True,
    help="pretty: the lines with words; json: only the lines.",
)
def command(fault: str, stuck_after: int, style: str) -> int:
    """Make DNS go wrong on purpose and watch the real agent say why.

    A small program looks a name up in a private network namespace where FAULT is wrong (default: silent).
    This machine's own DNS is not touched, and nothing is left behind.
    """
    if os.geteuid() != 0:
        raise HostCannotTraceError(
            "the demo makes a private network namespace and loads BPF programs, which only root may",
            remedy="sudo ebpfdns demo",
        )
    if stuck_after > LONGEST_STUCK_AFTER_NS:
        raise UsageError(
            "nothing would count as stuck: the lookups of the demo end after 3 s",
            remedy="ebpfdns demo --stuck-after 2s",
        )
    for signal_number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.default_int_handler)  # as Ctrl-C: everything is taken down
    say = _say if style == "pretty" else _say_nothing
    try:
        threshold = f"{stuck_after / NS_PER_S:g}s"
        if fault == demo_go_test.NAME:
            return demo_go_test.play(threshold, say)
        return _play(FAULTS[fault], threshold, say)
    except AgentEndedError as ended:
        return ended.code or 1
    except BrokenPipeError:  # `ebpfdns demo | head -5`: a quiet, normal end; click would make it code 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _play(fault: Fault, stuck_after: str, say: Say) -> int:
    """One demo, from the fault to the last sentence; the exit code."""
    say(f"The fault: {fault.name}. {fault.sentence}")
    with Stage(fault, stuck_after) as stage:
        pid, settings = stage.program.pid, ", ".join(stage.resolv_conf.splitlines())
        say(f"A private network namespace is up; in it, /etc/resolv.conf says: {settings}.")
        say(f"A small program waits there as pid {pid}. The agent is started as anybody would:")
        say(f"  ebpfdns {' '.join(stage.agent_options)}")
        took_s = stage.start_agent()
        say(f"Every probe is live after {took_s:.1f} s. Now the program looks up {fault.name_asked}.")
        stage.release()
        seen = _follow(stage, say)
        code = stage.agent.wait()
        answer = stage.program_result()
    say("\n" + story.result(answer))
    say(story.ending(seen, fault.expected_cause))
    if code:
        return code
    missing = story.shortfall(seen, gets_stuck=plan_for(fault).gets_stuck)
    if missing:
        raise EbpfdnsError(f"this is not what the demo should show: {missing}", remedy="ebpfdns doctor")
    return 0


def _follow(stage: Stage, say: Say) -> story.Seen:
    """Show every line of the agent as it comes, with words before it; end a connect that would last."""
    seen = story.Seen()
    for text in stage.agent_lines():
        line: dict[str, Any] = json.loads(text)
        seen.lines.append(line)
        say("\n" + "\n".join(story.before(line)))
        click.echo(text)
        if line["event"] == "connect_stuck" and len(seen.of("connect_stuck")) == CONNECT_REPORTS:
            say("The kernel would go on trying for about two minutes; the demo ends the program here.")
            stage.stop_program()
        elif line["event"] == "lookup_stuck" and len(seen.of("lookup_stuck")) == stage.reports:
            say("It would go on like this for a while; the demo ends the program here.")
            stage.stop_program()
    return seen


def _say(sentence: str) -> None:
    """Words for the person who watches; bold on a terminal, to stand out from the lines."""
    click.secho(sentence, bold=True)


def _say_nothing(_sentence: str) -> None:
    """For readers that are programs."""
