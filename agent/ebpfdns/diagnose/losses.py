"""What evidence was lost while the lookup ran, and what that does to a cause.

Owns: the words for losses, and by how much they weaken.
Must not know: any rule, or which losses can hide a fact (a situation has only those).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence, one_step_down

if TYPE_CHECKING:
    from ebpfdns.model.facts import Lookup, Situation


def losses_of(situation: Situation, lookup: Lookup | None) -> Evidence | None:
    """What was lost, as evidence; None when nothing was."""
    lost = {_key(where): count for where, count in situation.lost.items() if count > 0}
    words = []
    if lost:
        words.append(f"{sum(lost.values())} events were lost while it ran ({', '.join(sorted(lost))})")
    if lookup is not None and lookup.may_be_missed:
        words.append("a table was full: some of its questions may not have been seen")
    if not words:
        return None
    may_be_missed = {"may_be_missed": True} if lookup is not None and lookup.may_be_missed else {}
    return Evidence("events_lost", "; ".join(words), {**lost, **may_be_missed})


def questions_not_kept(lookup: Lookup | None) -> Evidence | None:
    """Questions beyond those that a lookup keeps: each may have been answered."""
    if lookup is None or not lookup.more_queries:
        return None
    count = lookup.more_queries
    text = f"{count} further questions were counted, but their answers were not looked at"
    return Evidence("events_lost", text, {"queries_not_kept": count})


def weakened(cause: Cause, *losses: Evidence | None) -> Cause:
    """The cause with what was lost: one step less sure if anything was."""
    told = [loss for loss in losses if loss is not None]
    if not told:
        return cause
    return cause.at_most(one_step_down(cause.confidence)).with_evidence(*told)


def _key(where: str) -> str:
    """A name for the number: lost_ring_full."""
    key = re.sub(r"[^a-z0-9_]", "_", where.lower())
    return key if key.startswith("lost_") else f"lost_{key}"
