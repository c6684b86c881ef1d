"""What the probes add to a call, in the program that is traced and in others.

Owns: the rounds, in which every tracer has its turn, and the ratios within one round.
Must not know: how a tracer is started (`tracers`), how the table looks (`table`).

Machines are noisy: a neighbour on the core makes everything take almost twice as long for a while. So each
figure is that of the quietest round; the median of the ratios within each round stands beside it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import tracers
from table import Row, median_ratio, number

from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: kind of loop → calls in one measurement
CALLS = {"lookup": 40_000, "epoll_wait": 100_000, "poll": 100_000, "send_recv": 40_000, "write_read": 100_000}
SYSCALLS = ("epoll_wait", "epoll_pwait", "poll", "ppoll", "sendto", "recvfrom")
PASSES = 3
SLOW_PEER = 4  # the peers take so long a call that fewer will do
LOOKUP_BUDGET, PEER_BUDGET, OTHERS_BUDGET = 1.25, 0.2, 1.1
NOTHING_BUT_NOISE = 0.1
WAIT_BUDGETS = {"target": 2.0, "other": 1.2}
NON_DNS_BUDGET_NS, NON_DNS_OTHERS_BUDGET = 150.0, 1.3

#: (tracer, process, loop) → nanoseconds a call
Round = dict[tuple[str, str, str], float]


class Loops:
    """A running loops.c, on one processor."""

    def __init__(self, program: Path, cpu: int) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True)
        os.sched_setaffinity(self.process.pid, {cpu})

    def ns_per_call(self, kind: str, count: int) -> float:
        """Run one loop."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{kind} {count}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


@contextlib.contextmanager
def loops(program: Path) -> Iterator[Loops]:
    """A program that lives as long as the `with`."""
    running = Loops(program, min(os.sched_getaffinity(0)))
    try:
        yield running
    finally:
        running.process.communicate()


def measure(
    program: Path, folder: Path, rounds: int, scale: float
) -> tuple[list[Row], list[dict[str, float]]]:
    """All rows about cost, and the raw figures of every round."""
    with loops(program) as target, loops(program) as other:
        notes: dict[str, str] = {}
        played = [_round(target, other, folder, scale, notes) for _ in range(rounds)]
    raw = [{".".join(key): ns for key, ns in figures.items()} for figures in played]
    return [*_lookup_rows(played, notes), *_wait_rows(played), *_non_dns_rows(played)], raw


def _round(target: Loops, other: Loops, folder: Path, scale: float, notes: dict[str, str]) -> Round:
    """Every tracer once."""
    figures: Round = {}
    pid = target.process.pid

    def run(tracer: str, *kinds: str) -> None:
        share = SLOW_PEER if tracer in ("bcc", "bpftrace") else 1
        for kind in kinds or CALLS:
            for name, process in PASSES * (("target", target), ("other", other)):
                key = (tracer, name, kind)
                ns = process.ns_per_call(kind, int(CALLS[kind] * scale / share))
                figures[key] = min(ns, figures.get(key, ns))

    def one_lookup() -> float:
        return target.ns_per_call("lookup", 1)

    run("none")
    with tracers.empty(folder, pid, SYSCALLS):
        run("empty")
    with tracers.agent(folder, pid):
        run("ebpfdns")
    with tracers.agent(folder, pid, "--children"):
        run("ebpfdns-children", "lookup")
    for name, tool in (("bcc", tracers.bcc_tool), ("bpftrace", tracers.bpftrace_tool)):
        try:
            with tool(folder, pid, one_lookup):
                run(name, "lookup")
        except EbpfdnsError as error:
            notes[name] = str(error)
    return figures


class Added:
    """Nanoseconds that a tracer adds to one call: in the quietest round of all, and in each round."""

    def __init__(self, played: list[Round], tracer: str, process: str, kind: str) -> None:
        key, plain = (tracer, process, kind), ("none", process, kind)
        self.is_known = all(key in figures for figures in played)
        if self.is_known:
            self.ns = min(figures[key] for figures in played) - min(figures[plain] for figures in played)
            self.per_round = [figures[key] - figures[plain] for figures in played]


def _ratio(what: str, over: Added, under: Added, limit: float | None, note: str = "") -> Row:
    """A row that compares what two tracers add; the rounds' own median is told with it."""
    if not under.is_known or under.ns <= 0:
        return Row(what=what, value=None, unit="x", limit=limit, note=note)
    typical = median_ratio(over.per_round, under.per_round)
    rounds = "" if typical is None else f"median of rounds {number(typical)} x"
    return Row(
        what=what,
        value=over.ns / under.ns,
        unit="x",
        limit=limit,
        note="; ".join(filter(None, (rounds, note))),
    )


def _lookup_rows(played: list[Round], notes: dict[str, str]) -> list[Row]:
    """A getaddrinfo of a numeric host: the fastest lookup there is."""
    pair = Added(played, "empty", "target", "lookup")
    ours = Added(played, "ebpfdns", "target", "lookup")
    plain = min(figures["none", "target", "lookup"] for figures in played)
    rows = [
        Row(what="getaddrinfo without any tracer", value=plain, unit="ns"),
        Row(what="  added by an empty uprobe pair", value=pair.ns, unit="ns"),
        Row(what="  added by ebpfdns", value=ours.ns, unit="ns"),
        _ratio("  ebpfdns / empty pair", ours, pair, LOOKUP_BUDGET),
    ]
    for name in ("bcc", "bpftrace"):
        peer, what = Added(played, name, "target", "lookup"), f"  ebpfdns / {name}'s gethostlatency"
        note = f"it adds {peer.ns:,.0f} ns" if peer.is_known else notes.get(name, "")
        rows.append(_ratio(what, ours, peer, PEER_BUDGET if name == "bcc" else None, note))
    for tracer, what, limit in (
        ("ebpfdns", "attach", NOTHING_BUT_NOISE),
        ("ebpfdns-children", "attach --children", OTHERS_BUDGET),
    ):
        others = Added(played, tracer, "other", "lookup")
        rows.append(_ratio(f"  another process's, {what} / empty pair", others, pair, limit))
    return rows


def _wait_rows(played: list[Round]) -> list[Row]:
    """Waits that return at once."""
    rows = []
    for kind in ("epoll_wait", "poll"):
        for process, limit in WAIT_BUDGETS.items():
            pair = Added(played, "empty", process, kind)
            what = f"{kind} of {'the target' if process == 'target' else 'others'} / empty tracepoint pair"
            ours = Added(played, "ebpfdns", process, kind)
            rows.append(_ratio(what, ours, pair, limit, f"the pair adds {pair.ns:,.0f} ns"))
    return rows


def _non_dns_rows(played: list[Round]) -> list[Row]:
    """Calls on descriptors that have nothing to do with DNS; a loop makes two of them."""
    rows = []
    pair = Added(played, "empty", "other", "send_recv")
    for kind, what in (("send_recv", "send, recv"), ("write_read", "write, read")):
        target, others = (Added(played, "ebpfdns", process, kind) for process in ("target", "other"))
        name = f"{what} of the target, no DNS: added to each"
        rows += [
            Row(what=name, value=target.ns / 2, unit="ns", limit=NON_DNS_BUDGET_NS),
            _ratio(f"{what} of others / empty pair", others, pair, NON_DNS_OTHERS_BUDGET),
        ]
    return rows
