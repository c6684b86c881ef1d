"""Lookups of goroutines, beside which no thread waits: who is ahead, and what the process's threads do.

Owns: these comparisons and their words. Must not know: causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.cause import Evidence

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Lookup, Other

#: net.concurrentThreadsLimit: as many calls of libc at once, or fewer where few descriptors are allowed
MOST_CALLS = 500
KEPT_DESCRIPTORS = 30
#: A goroutine may lose the processor between its call and its turn.
SAME_TIME_NS = 100_000_000


def who(lookup: Lookup) -> str:
    """Whoever is in the lookup, as a sentence names it."""
    return f"thread {lookup.tid}" if lookup.goroutine_id is None else f"goroutine {lookup.goroutine_id}"


def is_idle(case: LookupCase) -> bool:
    """Whether it is a goroutine's, in flight, and neither Go nor libc has begun to ask for it."""
    lookup = case.lookup
    return lookup.is_of_go and case.is_open and not lookup.queries and not lookup.tid


def ahead(case: LookupCase) -> Other | None:
    """A lookup of another goroutine, of the very same name, that was first: Go lets that one ask for both.

    Of those that begin at the same time the one that asks need not be the one that began first.
    """
    first = case.situation.first_of_name
    others = (*((first,) if first else ()), *case.situation.others)
    found = [other for other in others if _is_ahead(other.lookup, case.lookup)]
    return next((other for other in found if other.lookup.queries), found[0] if found else None)


def _is_ahead(first: Lookup, lookup: Lookup) -> bool:
    is_same = first.is_of_go and first.name is not None and first.name == lookup.name
    latest_ns = lookup.start_ns + (SAME_TIME_NS if first.queries else 0)
    return is_same and first.status == "in_flight" and first.start_ns <= latest_ns


def call_limit(case: LookupCase) -> int | None:
    """How many calls of libc's resolver Go makes at once in this process; None: not known."""
    limits = (case.situation.process or {}).get("limits")
    if limits is None:
        return None
    nofile = limits.get("nofile")
    if nofile is None or nofile > MOST_CALLS:
        return MOST_CALLS
    return int(nofile - KEPT_DESCRIPTORS if nofile > KEPT_DESCRIPTORS else nofile)


def running_threads(case: LookupCase) -> list[dict[str, Any]]:
    """The threads of its process that are on a processor, or want to be."""
    threads = (case.situation.process or {}).get("threads") or ()
    return [seen for seen in threads if seen.get("state") == "R"]


def busy(case: LookupCase) -> Evidence | None:
    """What keeps a goroutine from being run: the threads that run something else; None: not seen."""
    threads = running_threads(case)
    if not threads:
        return None
    numbers: Numbers = {"thread": threads[0].get("tid"), "threads_running": len(threads)}
    total = (case.situation.process or {}).get("threads_total")
    if total is not None:
        numbers["threads"] = total
    named = f"thread {threads[0].get('tid')} is" if len(threads) == 1 else f"{len(threads)} threads are"
    return Evidence("thread_running_elsewhere", f"{named} running other code of the program", numbers)
