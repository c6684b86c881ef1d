"""`resolved_upstream_silent`: systemd-resolved works, but its DNS server does not answer it.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.behind import (
    asked,
    behind,
    not_joined,
    silence_of,
    unanswered_tls,
    upstream_silence,
)
from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.wording import dig

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """The lookup waits for systemd-resolved, which waits for a DNS server itself, in the clear."""
    found = behind(case)
    if found is None or not found.hop.is_resolved or not found.open_queries:
        return None
    if unanswered_tls(found) and not found.hop.is_joined:
        return None
    silence = silence_of(found, case)
    return Cause(
        "resolved_upstream_silent",
        silence.confidence,
        f"systemd-resolved works, but {silence.text}.",
        (*asked(case), *upstream_silence(found), *not_joined(found)),
        f"Try: {dig(silence.servers[0], case.lookup)}; another server: resolvectl dns LINK SERVER, or "
        "DNS= in /etc/systemd/resolved.conf",
    )
