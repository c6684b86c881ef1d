"""`resolved_stub_silent`: 127.0.0.53 does not answer, and what is behind it cannot be seen.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import STOPPED, daemon_of, not_working
from ebpfdns.diagnose.observations import no_reply
from ebpfdns.diagnose.wording import dig, seconds, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.diagnose.local_daemons import Daemon
    from ebpfdns.model.facts import Server

STUBS = ("127.0.0.53", "127.0.0.54")


def rule(case: LookupCase) -> Cause | None:
    """Every question that waits, waits for the stub listener of systemd-resolved; nothing was answered."""
    if case.answered or case.lookup.unexpected_replies or case.has_unread_answer or not case.silent:
        return None
    if not all(query.server.address in STUBS for query in case.silent):
        return None
    stub = case.silent[0].server
    waited_ns = max(map(case.waited_ns, case.silent))
    listener = ((case.situation.process or {}).get("listeners") or {}).get(stub.address) or {}
    daemon = daemon_of(listener.get("owner"))
    proved = _proofs(stub, listener.get("rx_queue_bytes"), daemon)
    who = (
        f"{daemon.text}, behind {server_text(stub)}," if daemon else f"The stub resolver {server_text(stub)}"
    )
    return Cause(
        "resolved_stub_silent",
        "confirmed" if proved and waited_ns >= A_SECOND_NS else "likely",
        f"{who} has not answered for {seconds(waited_ns)}.",
        (no_reply(case, stub), *(proved or [_not_seen(stub)])),
        _remedy(case, stub, daemon),
    )


def _proofs(stub: Server, unread_bytes: int | None, daemon: Daemon | None) -> list[Evidence]:
    found = [] if daemon is None else not_working(daemon)
    if unread_bytes:
        text = f"questions lie unread in the socket of {server_text(stub)}"
        numbers: Numbers = {"server": stub.address, "rx_queue_bytes": unread_bytes}
        found.append(Evidence("peer_rx_queue_not_empty", text, numbers))
    return found


def _not_seen(stub: Server) -> Evidence:
    text = f"not seen: what the daemon behind {server_text(stub)} waits for itself"
    return Evidence("probe_missing", text, {"server": stub.address})


def _remedy(case: LookupCase, stub: Server, daemon: Daemon | None) -> str:
    if daemon is not None and daemon.state in STOPPED and daemon.pid:
        return f"Try: kill -CONT {daemon.pid}, or systemctl restart systemd-resolved"
    return f"Try: resolvectl status; {dig(stub, case.lookup)}; systemctl restart systemd-resolved"
