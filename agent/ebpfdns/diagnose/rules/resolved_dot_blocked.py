"""`resolved_dot_blocked`: systemd-resolved must use DNS over TLS, and port 853 does not work.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import asked, behind, is_overdue_tls, tls_evidence, unanswered_tls
from ebpfdns.diagnose.cause import Cause, Evidence

if TYPE_CHECKING:
    from ebpfdns.diagnose.behind import Behind, Unanswered
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """The lookup waits for systemd-resolved, which waits on port 853 and asks nobody in the clear."""
    found = behind(case)
    if found is None or not found.hop.is_resolved or found.hop.is_joined:
        return None
    if found.hop.dns_over_tls in {"no", "opportunistic"}:
        return None
    waiting = unanswered_tls(found)
    if not waiting:
        return None
    worst = max(waiting, key=lambda one: one.waited_ns)
    is_strict = found.hop.dns_over_tls == "yes"
    is_sure = is_strict and is_overdue_tls(found, worst)
    what = worst.what
    must = "must use DNS over TLS" if is_strict else "uses DNS over TLS"
    return Cause(
        "resolved_dot_blocked",
        "confirmed" if is_sure else "likely",
        f"systemd-resolved {must}, and {what}.",
        (*asked(case), *(tls_evidence(found, one) for one in waiting), _setting(found)),
        _remedy(worst),
    )


def _setting(found: Behind) -> Evidence:
    if found.hop.dns_over_tls == "yes":
        text = "DNSOverTLS=yes: it will not fall back to plain DNS, and goes on for up to 120 s"
        return Evidence("dot_strict", text, {"dns_over_tls": "yes"})
    return Evidence("probe_missing", "not seen: whether DNSOverTLS= lets it fall back to plain DNS")


def _remedy(worst: Unanswered) -> str:
    server = worst.connect.server.address
    return (
        f"Open TCP port 853 to {server}, or set DNSOverTLS=opportunistic in /etc/systemd/resolved.conf and: "
        "systemctl restart systemd-resolved (of one link: resolvectl dnsovertls LINK opportunistic)"
    )
