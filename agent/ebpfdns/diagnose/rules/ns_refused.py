"""`ns_refused`: nothing listens on the DNS server's port.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.observations import errors
from ebpfdns.diagnose.wording import listing, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

ECONNREFUSED = 111


def rule(case: LookupCase) -> Cause | None:
    """The socket was told "port unreachable", and no other server is being waited for."""
    refused = case.failed_with(ECONNREFUSED)
    if not refused or case.silent or (case.is_open and case.answered):
        return None
    servers = list(dict.fromkeys(query.server for query in refused))
    others_wait = any(map(case.is_open_question, case.sent))
    explains_all = not others_wait and not case.answered
    port = servers[0].port
    named = listing(map(server_text, servers))
    return Cause(
        "ns_refused",
        "confirmed" if explains_all else "likely",
        f"Nothing listens on port {port}/udp of {named}: the question was refused.",
        tuple(errors(case.lookup.queries)),
        f"Start the DNS server on {servers[0].address}, or correct its address in /etc/resolv.conf; "
        f"there: ss -lunp 'sport = :{port}'",
    )
