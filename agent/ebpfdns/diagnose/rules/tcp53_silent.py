"""`tcp53_silent`: DNS over TCP is connected, but no answer comes.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import dig, milliseconds, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.diagnose.threads import Socket
    from ebpfdns.model.facts import Server

ESTABLISHED = "ESTABLISHED"


def rule(case: LookupCase) -> Cause | None:
    """A question left by TCP and has no answer; or the thread waits for such a connection."""
    waited = _waited_for(case)
    waiting = [query for query in case.sent if query.transport == "tcp" and case.is_open_question(query)]
    waited_ns = max(map(case.waited_ns, waiting), default=0)
    if waited is not None and waited.rx_queue_bytes:
        return None
    if waiting and waited_ns >= WORTH_SAYING_NS:
        server = waiting[0].server
        asked = _no_reply(case, server, waited_ns)
    elif waited is not None and waited.remote is not None and case.lookup.before_attach:
        server = waited.remote
        asked = _no_reply(case, server, case.elapsed_ns)
    else:
        return None
    evidence = (asked, _queues(server, waited)) if waited else (asked,)
    is_sure = bool(waiting) and waited is not None and waited_ns >= A_SECOND_NS
    return Cause(
        "tcp53_silent",
        "confirmed" if is_sure else "likely",
        f"{server_text(server)} accepts DNS over TCP, but sends no answer.",
        evidence,
        f"Try: {dig(server, case.lookup, '+tcp +time=2 +tries=1')}; "
        f"restart the DNS server on {server.address}",
    )


def _waited_for(case: LookupCase) -> Socket | None:
    """The TCP connection to a DNS server that the thread waits for."""
    for waited in case.thread.sockets if case.thread else ():
        if waited.kind == "tcp" and waited.is_dns and waited.state == ESTABLISHED:
            return waited
    return None


def _no_reply(case: LookupCase, server: Server, waited_ns: int) -> Evidence:
    verb = "has not answered" if case.is_open else "did not answer"
    return Evidence(
        "no_reply",
        f"{server_text(server)} {verb} over TCP for {case.lasted(waited_ns)}",
        {"server": server.address, "port": server.port, "waited_ms": milliseconds(waited_ns)},
    )


def _queues(server: Server, waited: Socket) -> Evidence:
    numbers: Numbers = {"server": server.address, "rx_queue_bytes": waited.rx_queue_bytes}
    if waited.tx_queue_bytes:
        text = f"{server_text(server)} did not even acknowledge the question: the path died after the connect"
        return Evidence("tx_queue_not_acked", text, numbers | {"tx_queue_bytes": waited.tx_queue_bytes})
    return Evidence("rx_queue_empty", "the connection is up, and nothing lies unread in it", numbers)
