"""`agent_blind`: probes were missing or events were lost: nothing can be said.

Owns: when that is so, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.losses import losses_of
from ebpfdns.diagnose.rules.unknown import observations

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """No other rule has matched, and what they needed may be what was not seen."""
    if not case.situation.wire:
        return Cause(
            "agent_blind",
            "confirmed",
            "What this lookup waits for cannot be said: DNS packets of this process are not seen.",
            observations(case),
            "Try: ebpfdns doctor; it names what is missing and how to get it",
        )
    if losses_of(case.situation, case.lookup) is None:
        return None
    return Cause(
        "agent_blind",
        "possible",
        "What this lookup waits for cannot be said: events that may have told it were lost.",
        observations(case),
        "Trace fewer processes; each `lost` line names what to raise. Then: ebpfdns doctor",
    )
