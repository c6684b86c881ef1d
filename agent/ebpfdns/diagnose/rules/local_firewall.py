"""`local_firewall`: this host's own firewall refuses to send the question.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import listing, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

EPERM = 1


def rule(case: LookupCase) -> Cause | None:
    """The kernel answered EPERM, and no other server is being waited for."""
    refused = case.failed_with(EPERM, sent=False)
    if not refused or case.silent or (case.is_open and case.answered):
        return None
    servers = list(dict.fromkeys(query.server for query in refused))
    evidence = tuple(
        Evidence(
            "send_refused_eperm",
            f"EPERM is what the kernel said to sending to {server_text(server)}",
            {"server": server.address, "port": server.port, "errno": EPERM},
        )
        for server in servers
    )
    return Cause(
        "local_firewall",
        "likely" if case.answered else "confirmed",
        f"This host's own firewall refuses to send DNS questions to {listing(map(server_text, servers))}.",
        evidence,
        "Try in the target's network namespace: nft list ruleset | grep -n drop; "
        "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
    )
