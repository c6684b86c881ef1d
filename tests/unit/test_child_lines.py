"""Lines about lookups of children that are not traced: told while open, ended once, counted by nobody."""

from __future__ import annotations

from typing import Any

import facts

from ebpfdns.correlate import items
from ebpfdns.pipeline import Pipeline


def fed() -> Pipeline:
    pipeline = Pipeline()
    pipeline.feed(facts.started())
    pipeline.feed(facts.attached())
    return pipeline


def children(seconds: float, *found: items.ChildLookup, ended: tuple[Any, ...] = ()) -> items.Item:
    return items.Children(**facts.clock(seconds), lookups=list(found), ended=list(ended))


def test_it_is_told_when_due_and_ended_once() -> None:
    """The first look tells it, later ones when its age has doubled, and its end is one line."""
    pipeline, child = fed(), facts.child_lookup(1)
    (first,) = pipeline.feed(children(1.5, child))
    assert (first["event"], first["process"]["pid"]) == ("lookup_stuck", 9)
    assert (first["cause"]["id"], first["cause"]["confidence"]) == ("child_process", "confirmed")
    lookup = first["lookup"]
    assert (lookup["since"], lookup["name"], lookup["api"]) == ("before_attach", None, None)
    assert pipeline.feed(children(1.6, child)) == []
    (second,) = pipeline.feed(children(3.5, child))
    assert second["lookup"]["update"] == 2
    (end,) = pipeline.feed(children(4, ended=(child,)))
    assert (end["event"], end["lookup"]["id"], end["lookup"]["status"]) == ("lookup", lookup["id"], None)
    assert pipeline.feed(children(5, ended=(child,))) == []


def test_it_counts_for_nobody() -> None:
    """The counters are the kernel's, and it knows nothing of that lookup."""
    pipeline = fed()
    pipeline.feed(children(1.5, facts.child_lookup(1)))
    (stats,) = pipeline.feed(facts.stats(2))
    assert stats["stats"]["lookups"]["stuck"] == 0
