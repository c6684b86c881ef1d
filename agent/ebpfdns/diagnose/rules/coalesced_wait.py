"""`coalesced_wait`: this lookup waits for an identical one that is already running.

Owns: what must have been seen, and the words for it. Must not know: other causes.

Of Go this is how it works: goroutines that want one name wait for the first of them. Of libc's callers it can
only be guessed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.goroutines import ahead, is_idle, who
from ebpfdns.diagnose.locks import leader, sits_in_futex, waits_for_lock
from ebpfdns.diagnose.wording import milliseconds, subject

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Other

#: These wait for each other whatever the name: `gethostbyname_serialized`.
LOCKED = ("gethostbyname", "gethostbyname2", "gethostbyaddr")


def rule(case: LookupCase) -> Cause | None:
    """It asked nobody, and one older lookup of the same name does ask."""
    lookup = case.lookup
    if lookup.is_of_go:
        return _of_goroutine(case) if is_idle(case) else None
    if lookup.queries or lookup.name is None or lookup.api in LOCKED or not sits_in_futex(case):
        return None
    older = _older_of_same_name(case)
    if older is None:
        return None
    return Cause(
        "coalesced_wait",
        "possible",
        f"Another thread already looks up {subject(lookup)}, and this lookup seems to wait for it.",
        (leader(case, older), waits_for_lock(case)),
        f"Cure what holds the lookup {older.id}",
    )


def _of_goroutine(case: LookupCase) -> Cause | None:
    """Go's resolver does one of several equal lookups, and gives its result to all."""
    first = ahead(case)
    if first is None:
        return None
    return Cause(
        "coalesced_wait",
        "confirmed" if first.lookup.queries else "likely",
        f"Another goroutine already looks up {subject(case.lookup)}, and this one waits for its result: "
        f"{first.cause_summary}",
        (leader(case, first), _asks_nobody(case)),
        f"Cure what holds the lookup {first.id}, of {who(first.lookup)}",
    )


def _asks_nobody(case: LookupCase) -> Evidence:
    text = f"in {case.lasted(case.elapsed_ns)} nothing was asked for this lookup itself"
    return Evidence("query_sent", text, {"elapsed_ms": milliseconds(case.elapsed_ns), "queries": 0})


def _older_of_same_name(case: LookupCase) -> Other | None:
    name = (case.lookup.name or b"").rstrip(b".").lower()
    for other in case.situation.others:
        is_older = other.lookup.start_ns <= case.lookup.start_ns and other.lookup.status == "in_flight"
        if is_older and other.lookup.queries and (other.lookup.name or b"").rstrip(b".").lower() == name:
            return other
    return None
