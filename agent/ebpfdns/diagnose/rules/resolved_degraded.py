"""`resolved_degraded`: systemd-resolved is probing what its server supports; each step costs seconds.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import asked, behind, is_overdue_tls, tls_evidence, unanswered_tls
from ebpfdns.diagnose.cause import Cause, Evidence

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """The lookup waits for systemd-resolved, which tries TLS first, in vain, and may go on without it."""
    found = behind(case)
    if found is None or not found.hop.is_resolved or found.hop.is_joined:
        return None
    if found.hop.dns_over_tls != "opportunistic":
        return None
    waiting = unanswered_tls(found)
    if not waiting:
        return None
    worst = max(waiting, key=lambda one: one.waited_ns)
    peer = worst.connect.server.text
    return Cause(
        "resolved_degraded",
        "confirmed" if is_overdue_tls(found, worst) else "likely",
        f"systemd-resolved tries DNS over TLS first, for 10 s; {peer} does not answer.",
        (*asked(case), *(tls_evidence(found, one) for one in waiting), _setting()),
        "Open TCP port 853, or set DNSOverTLS=no in /etc/systemd/resolved.conf and: systemctl restart "
        "systemd-resolved. What it has found out: resolvectl show-server-state",
    )


def _setting() -> Evidence:
    text = "DNSOverTLS=opportunistic: without TLS it goes on in the clear, and tries again later"
    return Evidence("dot_opportunistic", text, {"dns_over_tls": "opportunistic"})
