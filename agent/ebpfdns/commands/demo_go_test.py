"""`ebpfdns demo go-test-hang`: a real `go test` that hangs, what says why, and the two ways out.

Owns: the order of what is shown, and its words. Must not know: how any of it is made (`lab.go_test_stage`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab import go_test_stage, story
from ebpfdns.lab.go_test_stage import OTHER_STUB, STUB, UPSTREAM, WORKING_SERVER, GoTestStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.go_test_stage import Run

    Say = Callable[[str], None]

NAME = "go-test-hang"
SENTENCE = "A real `go test` hangs: its stub at 127.0.0.53 cannot reach its upstream over TLS."
SHOWN_EVENTS = frozenset({"lookup_stuck", "lookup", "connect_stuck", "lost"})
MOST_PACKETS = 24


WORDS = f"""A private network namespace is up; its /etc/resolv.conf says: nameserver {STUB}. There stands a
small forwarder of the lab's own. It must ask {UPSTREAM} by TLS on port 853, as systemd-resolved does with
DNSOverTLS=yes, and something on the way swallows those packets. The test is compiled first …"""
PACKETS = "\nWhat you would have had to read instead, as tcpdump -n 'port 53 or port 853' has it, in short:"
ABSENT = """Two questions to a forwarder on this very machine, and SYNs that nobody answers. That these are
the reason for those, and which program waits for them, is not in there."""
OWN_RESOLVER = f"""
The first way out: a resolver of the test's own, which asks {WORKING_SERVER} whatever resolv.conf says."""
OTHER_FORWARDER = f"""
The second: another forwarder, at {OTHER_STUB}, which asks {WORKING_SERVER} by plain UDP. The same test:"""


def play(stuck_after: str, say: Say) -> int:
    """The whole demo; its exit code."""
    say(f"The fault: {NAME}. {SENTENCE}")
    with GoTestStage(stuck_after) as stage:
        say(WORDS)
        say(f"… by {stage.build()}. All it wants is the addresses of proxy.golang.org.")
        stuck = _shown(stage, "TestDefaultResolver", ("--fail-on-stuck",), say)
        if stuck.code != go_test_stage.STUCK_CODE:
            raise _surprised("the run ends with 5, for a lookup got stuck", stuck)
        _show_end(stuck, say)
        say(PACKETS)
        _quote("\n".join(stage.packets()[:MOST_PACKETS]), say)
        say(ABSENT)
        say(OWN_RESOLVER)
        _good(stage, "TestOwnResolver", say)
        say(OTHER_FORWARDER)
        stage.use_forwarder(OTHER_STUB, WORKING_SERVER, "udp")
        _good(stage, "TestDefaultResolver", say)
    return 0


def _good(stage: GoTestStage, test: str, say: Say) -> None:
    """A run in which nothing hangs."""
    run = _shown(stage, test, ("--fail-on-stuck", "--all"), say)
    if run.code:
        raise _surprised("the test passes, and no lookup gets stuck", run)
    _show_end(run, say)


def _shown(stage: GoTestStage, test: str, words: tuple[str, ...], say: Say) -> Run:
    """One run, each of its lines as it comes, with words before it."""
    run, lines = stage.run(test, *words)
    say(f"\n  $ {' '.join(run.words)}")
    for text in lines:
        line: dict[str, Any] = json.loads(text)
        if line["event"] in SHOWN_EVENTS:
            say("\n" + "\n".join(story.before(line)))
            click.echo(text)
    return run


def _show_end(run: Run, say: Say) -> None:
    say(f"\nWhat go test itself printed (it took {run.lasted_s:.1f} s in all):")
    _quote(run.test_output, say)
    say(f"What ebpfdns said at the end, and it ended with {run.code}:")
    _quote(run.summary, say)


def _quote(text: str, say: Say) -> None:
    say("\n".join(f"  | {line}" for line in text.strip().splitlines()))


def _surprised(what: str, run: Run) -> EbpfdnsError:
    said = f"{run.test_output}{run.summary}"
    return EbpfdnsError(
        f"this is not what the demo should show ({what}); it ended with {run.code}:\n{said}",
        remedy="ebpfdns doctor",
    )
