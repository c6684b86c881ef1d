"""The named faults: what can be wrong with DNS, each set up in a sandbox within milliseconds.

Owns: the table of faults. Must not know: how one is set up (`fault`), who looks the name up, or what is
concluded from it beyond the expected cause's id.
"""

from __future__ import annotations

from ebpfdns.lab import topology
from ebpfdns.lab.behind_faults import BEHIND_FAULTS
from ebpfdns.lab.fault import Fault, RuleFields, ServerPlan, SilentListener
from ebpfdns.lab.firewall import walled
from ebpfdns.lab.local_faults import LOCAL_FAULTS
from ebpfdns.lab.wire_faults import WIRE_FAULTS

__all__ = ["FAULTS", "GOOD_ANSWER", "Fault", "RuleFields", "ServerPlan", "SilentListener", "late_reply"]

GOOD_ANSWER: RuleFields = {"answer": [topology.WEB, topology.WEB_V6]}
LATE_REPLY_DELAY_MS = 6000
WEB_PORT = 443


def _server(*script: RuleFields, listen: str = topology.SERVER_1) -> tuple[ServerPlan, ...]:
    """A single server with this script."""
    return (ServerPlan((listen,), script),)


def late_reply(delay_ms: float = LATE_REPLY_DELAY_MS) -> Fault:
    """The fault `late_reply` with a delay of your choice."""
    return Fault(
        name="late_reply",
        sentence=f"The server answers every question {delay_ms / 1000:g} s late.",
        servers=_server({**GOOD_ANSWER, "delay_ms": delay_ms}),
        expected_cause="late_reply",
        on_the_way=("ns_silent",),  # until the answer comes
    )


TABLE = (
    Fault(
        name="healthy",
        sentence="The server answers at once.",
        servers=_server(GOOD_ANSWER),
    ),
    Fault(
        name="silent",
        sentence="The server takes every question and never answers.",
        servers=_server({"drop": True}),
        expected_cause="ns_silent",
    ),
    Fault(
        name="refused",
        sentence="Nothing listens on port 53: the host answers that the port is unreachable.",
        expected_cause="ns_refused",
    ),
    Fault(
        name="unreachable",
        sentence="There is no route to the server.",
        nameservers=(topology.NO_ROUTE,),
        expected_cause="ns_unreachable",
    ),
    Fault(
        name="servfail",
        sentence="The server answers every question with SERVFAIL.",
        servers=_server({"rcode": 2}),
        expected_cause="rcode_retry",
    ),
    Fault(
        name="nxdomain",
        sentence="The server answers at once that there is no such name, which is no fault of DNS.",
        servers=_server({"rcode": 3}),
    ),
    Fault(
        name="one_reply_lost",
        sentence="The question for IPv4 is answered, the one for IPv6 never is.",
        servers=_server({"type": "AAAA", "drop": True}, GOOD_ANSWER),
        expected_cause="one_reply_lost",
    ),
    late_reply(),
    Fault(
        name="tcp",
        sentence="The answer is too long for UDP, so it comes over TCP: slower, and fine.",
        servers=_server({"transport": "udp", "truncate": True}, GOOD_ANSWER),
    ),
    Fault(
        name="tcp53_blocked",
        sentence="The answer is too long for UDP, and a firewall swallows TCP to port 53.",
        servers=_server({"transport": "udp", "truncate": True}, GOOD_ANSWER),
        expected_cause="tcp53_blocked",
        prepare=walled("input", "tcp dport 53 drop"),
    ),
    Fault(
        name="tcp53_silent",
        sentence="The answer is too long for UDP, and over TCP the server takes the question in silence.",
        servers=_server({"transport": "udp", "truncate": True}, {"drop": True}),
        expected_cause="tcp53_silent",
    ),
    Fault(
        name="first_ns_dead",
        sentence="Packets to the first server vanish; the second one answers.",
        nameservers=(topology.BLACK_HOLE_SERVER, topology.SERVER_2),
        servers=_server(GOOD_ANSWER, listen=topology.SERVER_2),
        expected_cause="first_ns_dead",
    ),
    Fault(
        name="connect_after_dns",
        sentence="The name resolves at once; the address it gives swallows every packet.",
        servers=_server({"answer": [topology.BLACK_HOLE]}),
        expected_cause="connect_after_dns",
        connect_port=WEB_PORT,
    ),
    Fault(
        name="ipv6_first_blackholed",
        sentence="The name has an IPv6 address that swallows every packet, and an IPv4 address that works.",
        servers=(
            *_server({"answer": [topology.WEB, topology.BLACK_HOLE_V6]}),
            SilentListener((topology.WEB,), WEB_PORT),
        ),
        expected_cause="ipv6_first_blackholed",
        connect_port=WEB_PORT,
    ),
    Fault(
        name="tls_stall",
        sentence="The name resolves, its server takes the connection, and never answers the TLS handshake.",
        servers=(*_server({"answer": [topology.WEB]}), SilentListener((topology.WEB,), WEB_PORT)),
        expected_cause="tls_stall",
        connect_port=WEB_PORT,
        uses_tls=True,
    ),
    Fault(
        name="child_process",
        sentence="The program waits for its child, and the child for a server that never answers.",
        servers=_server({"drop": True}),
        expected_cause="child_process",
        program=("target", "--in-child"),
    ),
    *WIRE_FAULTS,
    *LOCAL_FAULTS,
    *BEHIND_FAULTS,
)

#: name → fault, in the order of the table.
FAULTS = {fault.name: fault for fault in TABLE}
