"""`nscd_stall`: the name service cache daemon does not answer.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import is_at_work
from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.local_daemons import (
    asked_nobody,
    not_proved,
    proofs,
    release,
    served_by,
    waited_at,
    waits_there,
)

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

PATHS = ("/run/nscd/socket",)


def rule(case: LookupCase) -> Cause | None:
    """It has asked no server, and its thread waits at nscd's socket."""
    waited = None if case.lookup.queries else waited_at(case, PATHS)
    if waited is None:
        return None
    proved = proofs(waited)
    if not proved and is_at_work(case):
        return None
    who = served_by(waited, "the name service cache daemon")
    return Cause(
        "nscd_stall",
        "confirmed" if proved and case.elapsed_ns >= A_SECOND_NS else "likely",
        f"The program waits for {who}, which does not answer: glibc gives it 5 s, twice.",
        (waits_there(case, waited), *(proved or [not_proved(waited)]), asked_nobody(case)),
        f"{release(waited, 'nscd')}; if nobody needs it, remove it",
    )
