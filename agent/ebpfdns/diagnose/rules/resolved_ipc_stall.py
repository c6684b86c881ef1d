"""`resolved_ipc_stall`: systemd-resolved is stopped or stuck, and the program waits on its local socket.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import is_at_work
from ebpfdns.diagnose.case import A_SECOND_NS
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
from ebpfdns.diagnose.observations import query_sent

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

PATHS = ("/run/systemd/resolve/io.systemd.Resolve",)


def rule(case: LookupCase) -> Cause | None:
    """No server owes it an answer, and its thread waits at the socket of systemd-resolved."""
    waited = waited_at(case, PATHS) if owed_by_none(case) else None
    if waited is None:
        return None
    proved = proofs(waited)
    if not proved and is_at_work(case):
        return None
    who = served_by(waited, "systemd-resolved")
    return Cause(
        "resolved_ipc_stall",
        "confirmed" if proved and case.elapsed_ns >= A_SECOND_NS else "likely",
        f"The program waits for {who} on its local socket, which does not answer: up to 120 s.",
        (waits_there(case, waited), *(proved or [not_proved(waited)]), query_sent(case)),
        f"{release(waited, 'systemd-resolved')}; what it waits for: resolvectl status",
    )
