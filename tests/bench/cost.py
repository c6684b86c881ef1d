"""What the probes add to a call, in the program that is traced and in others.

Owns: the rounds, in which every tracer has its turn, and the ratios within one round.
Must not know: how a tracer is started (`tracers`), how the table looks (`table`).

Machines are noisy: a neighbour on the core makes everything take almost twice as long for a while. So each
figure is the best of a few passes, each ratio is within one round, and the table shows the median of rounds.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import tracers
from table import Row, median, median_ratio

from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: kind of loop → calls in one measurement
CALLS = {
    "lookup": 40_000,
    "epoll_wait": 100_000,
    "poll": 100_000,
    "send_recv": 40_000,
    "tcp_send_recv": 20_000,
    "write_read": 100_000,
}
SYSCALLS = ("epoll_wait", "epoll_pwait", "poll", "ppoll", "sendto", "recvfrom")
ELSEWHERE = ("epoll_pwait",)  # while any call is traced, the kernel takes the longer way into every one
PASSES = 3
SLOW_PEER = 40  # bursts that a peer can take in: with its buffer full it gets cheaper, and shows less
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
    pid = target.process.pid

    def run(tracer: str, *kinds: str) -> Round:
        taken: Round = {}
        share = SLOW_PEER if tracer in ("bcc", "bpftrace") else 1
        for kind in kinds or CALLS:
            for name, process in PASSES * (("target", target), ("other", other)):
                key = (tracer, name, kind)
                ns = process.ns_per_call(kind, int(CALLS[kind] * scale / share))
                taken[key] = min(ns, taken.get(key, ns))
        return taken

    def one_lookup() -> float:
        return target.ns_per_call("lookup", 1)

    figures = run("none")
    for name, tool, kinds in (
        ("empty", tracers.empty(folder, pid, SYSCALLS), ()),
        ("empty-elsewhere", tracers.empty(folder, pid, ELSEWHERE), ("tcp_send_recv",)),
        ("ebpfdns", tracers.agent(folder, pid), ()),
        ("ebpfdns-children", tracers.agent(folder, pid, "--children"), ("lookup",)),
        ("bcc", tracers.bcc_tool(folder, pid, one_lookup), ("lookup",)),
        ("bpftrace", tracers.bpftrace_tool(folder, pid, one_lookup), ("lookup",)),
    ):
        try:
            with tool:
                taken = run(name, *kinds)
            figures |= taken  # not those of a tracer that ended meanwhile
        except EbpfdnsError as error:  # this round goes without it
            notes[name] = str(error)
    return figures


def _added(played: list[Round], tracer: str, process: str, kind: str) -> dict[int, float]:
    """Nanoseconds that a tracer adds to one call, for each round that had it."""
    key, plain = (tracer, process, kind), ("none", process, kind)
    return {n: figures[key] - figures[plain] for n, figures in enumerate(played) if key in figures}


def _ratio(
    what: str, over: dict[int, float], under: dict[int, float], limit: float | None, note: str = ""
) -> Row:
    """A row that compares what two tracers add."""
    both = [n for n in over if n in under]
    value = median_ratio([over[n] for n in both], [under[n] for n in both])
    return Row(what=what, value=value, unit="x", limit=limit, note=note)


def _time(what: str, added: dict[int, float], limit: float | None = None) -> Row:
    """A row with what a tracer adds."""
    value = median(added.values()) if added else None
    return Row(what=what, value=value, unit="ns", limit=limit)


def _lookup_rows(played: list[Round], notes: dict[str, str]) -> list[Row]:
    """A getaddrinfo of a numeric host: the fastest lookup there is."""
    pair = _added(played, "empty", "target", "lookup")
    ours = _added(played, "ebpfdns", "target", "lookup")
    plain = {n: figures["none", "target", "lookup"] for n, figures in enumerate(played)}
    rows = [
        _time("getaddrinfo without any tracer", plain),
        _time("  added by an empty uprobe pair", pair),
        _time("  added by ebpfdns", ours),
        _ratio("  ebpfdns / empty pair", ours, pair, LOOKUP_BUDGET),
    ]
    for name in ("bcc", "bpftrace"):
        peer, what = _added(played, name, "target", "lookup"), f"  ebpfdns / {name}'s gethostlatency"
        note = f"it adds {median(peer.values()):,.0f} ns" if peer else notes.get(name, "")
        rows.append(_ratio(what, ours, peer, PEER_BUDGET if name == "bcc" else None, note))
    for tracer, what, limit in (
        ("ebpfdns", "attach", NOTHING_BUT_NOISE),
        ("ebpfdns-children", "attach --children", OTHERS_BUDGET),
    ):
        others = _added(played, tracer, "other", "lookup")
        rows.append(_ratio(f"  another process's, {what} / empty pair", others, pair, limit))
    return rows


def _wait_rows(played: list[Round]) -> list[Row]:
    """Waits that return at once."""
    rows = []
    for kind in ("epoll_wait", "poll"):
        for process, limit in WAIT_BUDGETS.items():
            pair = _added(played, "empty", process, kind)
            what = f"{kind} of {'the target' if process == 'target' else 'others'} / empty tracepoint pair"
            ours = _added(played, "ebpfdns", process, kind)
            note = f"the pair adds {median(pair.values()):,.0f} ns" if pair else ""
            rows.append(_ratio(what, ours, pair, limit, note))
    return rows


def _non_dns_rows(played: list[Round]) -> list[Row]:
    """Calls on descriptors that have nothing to do with DNS; a loop makes two of them."""
    rows = _tcp_rows(played)
    pair = _added(played, "empty", "other", "send_recv")
    for kind, what in (("send_recv", "send, recv"), ("write_read", "write, read")):
        target, others = (_added(played, "ebpfdns", process, kind) for process in ("target", "other"))
        each = {n: added / 2 for n, added in target.items()}
        rows += [
            _time(f"{what} of the target, no DNS: added to each", each, NON_DNS_BUDGET_NS),
            _ratio(f"{what} of others / empty pair", others, pair, NON_DNS_OTHERS_BUDGET),
        ]
    return rows


def _tcp_rows(played: list[Round]) -> list[Row]:
    """A TCP connection over loopback: each send makes a segment arrive, and one go back."""
    empty, ours = (
        {n: added / 2 for n, added in _added(played, tracer, "target", "tcp_send_recv").items()}
        for tracer in ("empty-elsewhere", "ebpfdns")
    )
    own = {n: added - empty[n] for n, added in ours.items() if n in empty}
    return [
        _time("TCP send, recv over loopback, no DNS: added to each", ours, NON_DNS_BUDGET_NS),
        _time("  the kernel's own: empty programs on packets, and on another call", empty),
        _time("  what ebpfdns's programs take", own),
    ]
