"""The counters of a `stats` line for people: what was seen, how long it took, what it cost.

Owns: the choice of numbers and how each is said. Must not know: blocks, colours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.publish.phrases import age, amount, clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.publish.events import Event

MIB = 1 << 20


def rows(event: Event) -> Iterator[tuple[Any, ...]]:
    """(label, text) of each row."""
    stats = event.get("stats") or {}
    if stats.get("connects"):
        yield "connects", _counts(stats["connects"], ("started", "ok", "failed", "stuck", "in_flight"))
    if stats.get("queries"):
        yield "queries", _counts(stats["queries"], ("sent", "answered", "unanswered"))
    latencies = [text for text in map(_latency, _histograms(stats)) if text]
    if latencies:
        yield "latency", "; ".join(latencies)
    lost = stats.get("lost") or {}
    yield "lost", ", ".join(f"{clean(stage)} {count}" for stage, count in lost.items() if count) or "nothing"
    agent = stats.get("agent") or {}
    if agent:
        yield "agent", ", ".join(_cost(agent))


def _counts(counts: Event, names: tuple[str, ...]) -> str:
    return ", ".join(f"{amount(counts.get(name))} {name.replace('_', ' ')}" for name in names)


def _histograms(stats: Event) -> Iterator[tuple[str, Event]]:
    for name in ("lookup", "connect", "query"):
        yield name, (stats.get("latency_ms") or {}).get(name) or {}


def _latency(entry: tuple[str, Event]) -> str:
    """Half of them, and all but one in a hundred, took at most so long: upper ends of buckets."""
    name, found = entry
    if not found.get("count"):
        return ""
    half, most = (_quantile(found, share) for share in (0.5, 0.99))
    return f"{name} 50 % {half}, 99 % {most}"


def _quantile(found: Event, share: float) -> str:
    for bound_ms, below in found.get("buckets") or ():
        if below >= share * found["count"]:
            return f"≤ {age(bound_ms)}"
    return "beyond the last bucket"


def _cost(agent: Event) -> Iterator[str]:
    if agent.get("cpu_ms") is not None:
        yield f"{age(agent['cpu_ms'])} of CPU"
    if agent.get("rss_bytes") is not None:
        yield f"{agent['rss_bytes'] // MIB} MiB resident"
    bpf = agent.get("bpf") or {}
    if bpf.get("run_ms") is not None:
        yield f"{age(bpf['run_ms'])} in BPF programs"
