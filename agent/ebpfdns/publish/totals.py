"""The `stats` object: the kernel's counters and histograms, under the names of the contract.

Owns: which counter is which field. Must not know: how they are read, or what else a line has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.model.boundary import HISTOGRAM_SHIFT, Counter, Latency, WaitKind
from ebpfdns.publish.events import Event, histogram

if TYPE_CHECKING:
    from collections.abc import Sequence


def counted(counters: Sequence[int], *, stuck_lookups: int, stuck_connects: int) -> Event:
    """`lookups`, `connects` and `queries`; what was stuck is the one thing that the kernel does not count."""
    return {
        "lookups": _of("LOOKUPS", counters, stuck_lookups),
        "connects": _of("CONNECTS", counters, stuck_connects),
        "queries": {
            "sent": counters[Counter.QUERIES_SENT],
            "answered": counters[Counter.QUERIES_ANSWERED],
            "unanswered": counters[Counter.QUERIES_UNANSWERED],
        },
    }


def _of(what: str, counters: Sequence[int], stuck: int) -> dict[str, int]:
    started = counters[Counter[f"{what}_STARTED"]]
    ends = {end: counters[Counter[f"{what}_{end.upper()}"]] for end in ("ok", "failed", "abandoned")}
    at = Counter[f"{what}_UNSEEN"]
    unseen = counters[at] if at < len(counters) else 0  # a recording from before there was that counter
    in_flight = max(started - sum(ends.values()) - unseen, 0)  # the counters are not read at one moment
    told = {"started": started, **ends, "stuck": stuck, "in_flight": in_flight}
    return told | {"end_unseen": unseen} if unseen else told


def latencies(histograms: Sequence[list[int]]) -> Event:
    """`latency_ms`."""
    rows = [histogram(row, HISTOGRAM_SHIFT) for row in histograms]
    return {
        "lookup": rows[Latency.LOOKUP],
        "connect": rows[Latency.CONNECT],
        "query": rows[Latency.QUERY],
        "event_loop_wait": {kind.name.lower(): rows[Latency.WAIT + kind] for kind in WaitKind},
    }
