"""Faults that show on the wire, or in what resolv.conf says: strange answers, own firewalls, wrong files.

Owns: these entries of the table. Must not know: how a fault is set up.
"""

from __future__ import annotations

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, RuleFields, ServerPlan
from ebpfdns.lab.firewall import fragmenting, walled

GOOD: RuleFields = {"answer": [topology.WEB, topology.WEB_V6]}
SEARCH = ("a.lab.test", "b.lab.test", "c.lab.test")


def _serving(*script: RuleFields, listen: str = topology.SERVER_1) -> tuple[ServerPlan, ...]:
    """A single server with this script."""
    return (ServerPlan((listen,), script),)


WIRE_FAULTS = (
    Fault(
        name="reply_ignored",
        sentence="The server answers from an address that was not asked, as one with two addresses may.",
        servers=_serving({**GOOD, "source": topology.SERVER_2}),
        expected_cause="reply_ignored",
    ),
    Fault(
        name="local_firewall",
        sentence="This host's own firewall lets no question leave.",
        servers=_serving(GOOD),
        expected_cause="local_firewall",
        prepare=walled("output", "udp dport 53 drop"),
    ),
    Fault(
        name="search_amplification",
        sentence="Each name is tried with three suffixes first, and each answer takes 400 ms.",
        servers=_serving(
            *({"suffix": suffix, "rcode": 3, "delay_ms": 400} for suffix in SEARCH),
            {**GOOD, "delay_ms": 400},
        ),
        expected_cause="search_amplification",
        on_the_way=("ns_silent",),
        search=SEARCH,
        options="ndots:5",
    ),
    Fault(
        name="no_nameserver",
        sentence="resolv.conf names no server, so 127.0.0.1 is asked, where nobody listens.",
        nameservers=(),
        expected_cause="no_nameserver",
    ),
    Fault(
        name="stale_resolv_conf",
        sentence="resolv.conf was replaced while the program ran, and the program still asks the old server.",
        servers=(
            *_serving({**GOOD, "nth": 1}, {"drop": True}),
            *_serving(GOOD, listen=topology.SERVER_2),
        ),
        expected_cause="stale_resolv_conf",
        options="no-reload",
        program=("target", "--replace", f"nameserver {topology.SERVER_2}\n"),
    ),
    Fault(
        name="edns_dropped",
        sentence="The server answers a plain question, and drops the same one with an OPT record (EDNS).",
        servers=_serving({"edns": True, "drop": True}, GOOD),
        expected_cause="edns_dropped",
        program=("own_resolver", "--server", topology.SERVER_1, "--edns"),
    ),
    Fault(
        name="fragments_dropped",
        sentence="Answers with EDNS come in fragments, of which only the first ones get through.",
        servers=_serving({"edns": True, "answer": [topology.WEB] * 120}, GOOD),
        expected_cause="edns_dropped",
        program=("own_resolver", "--server", topology.SERVER_1, "--edns"),
        prepare=fragmenting,
    ),
    Fault(
        name="bypass",
        sentence="The program asks a silent server of its own; the one of resolv.conf would answer.",
        servers=(*_serving(GOOD), *_serving({"drop": True}, listen=topology.SERVER_2)),
        expected_cause="bypass",
        program=("own_resolver", "--server", topology.SERVER_2),
    ),
)
