"""`coalesced_wait`: this lookup waits for an identical one that is already running.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.locks import leader, sits_in_futex, waits_for_lock
from ebpfdns.diagnose.wording import subject

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Other

#: These wait for each other whatever the name: `gethostbyname_serialized`.
LOCKED = ("gethostbyname", "gethostbyname2", "gethostbyaddr")


def rule(case: LookupCase) -> Cause | None:
    """It asked nobody and sits in a futex, and one older lookup of the same name does ask."""
    lookup = case.lookup
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


def _older_of_same_name(case: LookupCase) -> Other | None:
    name = (case.lookup.name or b"").rstrip(b".").lower()
    for other in case.situation.others:
        is_older = other.lookup.start_ns <= case.lookup.start_ns and other.lookup.status == "in_flight"
        if is_older and other.lookup.queries and (other.lookup.name or b"").rstrip(b".").lower() == name:
            return other
    return None
