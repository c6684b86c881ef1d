"""`gethostbyname_serialized`: the thread waits for a lock that another thread's gethostbyname holds.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.locks import has_arguments, leader, lock_wait, sits_in_futex, waits_for_lock
from ebpfdns.diagnose.wording import subject

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Other

#: glibc's functions that hold a lock for the whole lookup, each one of its own.
LOCKED = ("gethostbyname", "gethostbyname2", "gethostbyaddr")
#: Whoever waits for the lock does not hold it; whoever nothing is known of may not either.
NOT_HOLDING = ("gethostbyname_serialized", "fork_lock_inherited", "unknown", "agent_blind")


def rule(case: LookupCase) -> Cause | None:
    """It asked nobody, sits in a lock's futex, and another thread is inside the same function."""
    lookup = case.lookup
    if lookup.api not in LOCKED or lookup.queries or case.situation.resolver == "musl":
        return None
    if not sits_in_futex(case):
        return None
    lock = lock_wait(case.situation.thread)
    if lock is None and has_arguments(case.situation.thread):
        return None  # it waits for something else than a lock
    holder = _holder(case)
    if holder is None:
        return None
    function = lookup.api
    return Cause(
        "gethostbyname_serialized",
        "confirmed" if lock and holder.lookup.queries else "likely",
        f"Only one thread at a time can be in {function}: this one waits for thread {holder.lookup.tid}, "
        f"which looks up {subject(holder.lookup)}.",
        (waits_for_lock(case), leader(case, holder)),
        f"Use getaddrinfo, or {function}_r, in the program; and cure what holds the lookup {holder.id}",
    )


def _holder(case: LookupCase) -> Other | None:
    """The lookup inside the same function that is past the lock: one that asks, or is known to wait."""
    inside = [
        other
        for other in case.situation.others
        if other.lookup.api == case.lookup.api
        and other.lookup.status == "in_flight"
        and other.lookup.tid != case.lookup.tid
    ]
    asking = [other for other in inside if other.lookup.queries]
    waiting = [other for other in inside if other.cause_id not in NOT_HOLDING]
    return next(iter(asking + waiting), None)
