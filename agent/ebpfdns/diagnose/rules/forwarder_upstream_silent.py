"""`forwarder_upstream_silent`: the local forwarder got the question; its own server is silent.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import (
    asked,
    behind,
    not_joined,
    silence_of,
    tls_evidence,
    unanswered_tls,
    upstream_silence,
)
from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.wording import dig

if TYPE_CHECKING:
    from ebpfdns.diagnose.behind import Behind
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """The lookup waits for a daemon that is not systemd-resolved, and that for a DNS server itself."""
    found = behind(case)
    if found is None or found.hop.is_resolved:
        return None
    if not found.open_queries:
        return _over_tls(case, found)
    silence = silence_of(found, case)
    return Cause(
        "forwarder_upstream_silent",
        silence.confidence,
        f"{found.text} has the question, but {silence.text}.",
        (*asked(case), *upstream_silence(found), *not_joined(found)),
        f"Try where {found.text} runs: {dig(silence.servers[0], case.lookup)}; give it another server",
    )


def _over_tls(case: LookupCase, found: Behind) -> Cause | None:
    """It asks over TLS, which leads nowhere. What it asks, and whether it has another way, is not seen."""
    waiting = unanswered_tls(found)
    if not waiting or found.hop.is_joined:
        return None
    worst = max(waiting, key=lambda one: one.waited_ns)
    server = worst.connect.server
    return Cause(
        "forwarder_upstream_silent",
        "likely",
        f"{found.text} has the question, but {worst.what}.",
        (*asked(case), *(tls_evidence(found, one) for one in waiting), *not_joined(found)),
        f"Open TCP port {server.port} to {server.address}, or give {found.text} another server, or plain DNS",
    )
