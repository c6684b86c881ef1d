"""A thread that waits for a lock: what its futex call says, and which other lookup holds it.

Owns: the arguments of a futex wait, and the words for both. Must not know: causes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.goroutines import who
from ebpfdns.diagnose.wording import milliseconds, seconds, subject

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Other

FUTEX_WAIT, COMMANDS, PRIVATE = 0, 0x7F, 0x80
#: What libc's locks hold while somebody waits for them; condition variables hold other numbers.
CONTENDED = 2
TIMEOUT_ARGUMENT = 3


@dataclass(frozen=True, slots=True)
class LockWait:
    """A wait for a lock of libc's kind, without a time limit."""

    address: int
    is_private: bool  # only a thread of this very process can release it


def sits_in_futex(case: LookupCase) -> bool:
    """Whether its thread sleeps in a futex call."""
    thread = case.thread
    return thread is not None and thread.syscall == "futex" and not thread.is_running


def lock_wait(snapshot: Mapping[str, Any] | None) -> LockWait | None:
    """The lock that the thread waits for; None when it waits for something else, or that was not seen."""
    arguments = (snapshot or {}).get("args") or []
    if (snapshot or {}).get("syscall") != "futex" or len(arguments) <= TIMEOUT_ARGUMENT:
        return None
    address, operation, value = arguments[:TIMEOUT_ARGUMENT]
    is_lock = operation & COMMANDS == FUTEX_WAIT and value & 0xFFFF_FFFF == CONTENDED
    if not is_lock or arguments[TIMEOUT_ARGUMENT]:
        return None
    return LockWait(address, bool(operation & PRIVATE))


def has_arguments(snapshot: Mapping[str, Any] | None) -> bool:
    """Whether the arguments of its call were seen at all."""
    return bool((snapshot or {}).get("args"))


def waits_for_lock(case: LookupCase) -> Evidence:
    """The thread waits for a lock, for ever if need be."""
    age = milliseconds(case.elapsed_ns)
    if lock_wait(case.situation.thread) is None:
        text = "the thread sits in futex; what it waits for there was not seen"
        return Evidence("blocked_in_syscall", text, {"syscall": "futex", "elapsed_ms": age})
    text = "the thread waits for a lock (futex), without a time limit"
    return Evidence("futex_wait_no_timeout", text, {"syscall": "futex", "elapsed_ms": age})


def leader(case: LookupCase, other: Other) -> Evidence:
    """The lookup that all waits for: whose it is, how far it is, and why."""
    lookup = other.lookup
    age_ns = max(0, case.at_ns - lookup.start_ns)
    asked = len(lookup.queries) + lookup.more_queries
    has_asked = f"has asked {asked} question{'s' if asked != 1 else ''}" if asked else "has asked nobody yet"
    function = "a lookup" if lookup.is_of_go else lookup.api
    text = (
        f"{who(lookup)} has been in {function} of {subject(lookup)} for {seconds(age_ns)} and "
        f"{has_asked} (lookup {other.id}): {other.cause_summary}"
    )
    whose = {"goroutine": lookup.goroutine_id} if lookup.is_of_go else {"thread": lookup.tid}
    numbers: Numbers = {
        "lookup": other.id,
        **whose,
        "name": subject(lookup),
        "elapsed_ms": milliseconds(age_ns),
        "queries": asked,
        "cause": other.cause_id,
    }
    return Evidence("leader_lookup", text, numbers)
