"""`avahi_stall`: a lookup waits for the Avahi daemon.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, NS_PER_S
from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.local_daemons import (
    not_proved,
    owed_by_none,
    proofs,
    release,
    served_by,
    waited_at,
    waits_there,
)

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

PATHS = ("/run/avahi-daemon/socket",)
#: Avahi itself says "not found" after 5 s for each of the two families.
ONE_FAMILY_NS, BOTH_FAMILIES_NS = 6 * NS_PER_S, 11 * NS_PER_S


def rule(case: LookupCase) -> Cause | None:
    """Its thread waits at Avahi's socket, and Avahi is seen to be stuck, or has had its time."""
    waited = waited_at(case, PATHS) if owed_by_none(case) else None  # nss-mdns asks DNS for `local` first
    if waited is None:
        return None
    proved = proofs(waited)
    if not proved and case.elapsed_ns < ONE_FAMILY_NS:
        return None
    who = served_by(waited, "the Avahi daemon")
    is_sure = case.elapsed_ns >= (A_SECOND_NS if proved else BOTH_FAMILIES_NS)
    return Cause(
        "avahi_stall",
        "confirmed" if is_sure else "likely",
        f"The program waits for {who}, which does not answer; nss-mdns sets no time limit.",
        (waits_there(case, waited), *(proved or [not_proved(waited)])),
        f"{release(waited, 'avahi-daemon')}; or take mdns out of hosts: in /etc/nsswitch.conf",
    )
