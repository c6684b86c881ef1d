"""Faults behind a local resolver: the program's own server works, the one behind it does not.

Owns: these entries of the table. Must not know: how a daemon is run (`real_daemons`), or a fault set up.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan, SilentListener
from ebpfdns.lab.firewall import wall
from ebpfdns.lab.holder import SCRATCH
from ebpfdns.lab.real_daemons import (
    FORWARDER,
    STUB,
    Dnsmasq,
    Resolved,
    Unbound,
    configure_resolved,
    configure_unbound,
    make_certificate,
)

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

DOT_PORT = 853
CERTIFICATE = f"{SCRATCH}/dot.pem"


def _strict_with_certificate(sandbox: Sandbox) -> None:
    make_certificate(sandbox, CERTIFICATE, topology.SERVER_2)
    configure_resolved(sandbox, topology.SERVER_2, DNSOverTLS="yes")


def _validating(sandbox: Sandbox) -> None:
    """Also below .test, which nobody signs: a file of exceptions replaces those that are built in."""
    configure_resolved(sandbox, topology.SERVER_1, DNSSEC="yes")
    folder = sandbox.root / "etc/dnssec-trust-anchors.d"
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(exist_ok=True)
    (folder / "lab.negative").write_text("nothing.invalid\n", encoding="ascii")


def _opportunistic_behind_a_wall(sandbox: Sandbox) -> None:
    wall(sandbox, "input", "tcp dport 853 drop")
    configure_resolved(sandbox, topology.SERVER_1, DNSOverTLS="opportunistic")


BEHIND_FAULTS = (
    Fault(
        name="resolved_dot_blocked",
        sentence="systemd-resolved must use DNS over TLS, and packets to port 853 vanish.",
        nameservers=(STUB,),
        servers=(Resolved(),),
        expected_cause="resolved_dot_blocked",
        prepare=partial(configure_resolved, servers=topology.BLACK_HOLE_SERVER, DNSOverTLS="yes"),
    ),
    Fault(
        name="resolved_dot_stalled",
        sentence="systemd-resolved must use DNS over TLS; its server takes the connection, and says nothing.",
        nameservers=(STUB,),
        servers=(SilentListener((topology.SERVER_2,), DOT_PORT), Resolved()),
        expected_cause="resolved_dot_blocked",
        prepare=partial(configure_resolved, servers=topology.SERVER_2, DNSOverTLS="yes"),
    ),
    Fault(
        name="resolved_dot_silent",
        sentence="systemd-resolved must use DNS over TLS; its server takes the question in silence.",
        nameservers=(STUB,),
        servers=(
            SilentListener((topology.SERVER_2,), DOT_PORT, tls=CERTIFICATE),
            Resolved(trusts=CERTIFICATE),
        ),
        expected_cause="resolved_dot_blocked",
        prepare=_strict_with_certificate,
    ),
    Fault(
        name="resolved_degraded",
        sentence="systemd-resolved tries TLS first: packets to port 853 vanish, and port 53 would answer.",
        nameservers=(STUB,),
        servers=(
            ServerPlan((topology.SERVER_1,), ({"answer": [topology.WEB, topology.WEB_V6]},)),
            Resolved(),
        ),
        expected_cause="resolved_degraded",
        prepare=_opportunistic_behind_a_wall,
    ),
    Fault(
        name="resolved_upstream_silent",
        sentence="systemd-resolved asks a server whose packets vanish.",
        nameservers=(STUB,),
        servers=(Resolved(),),
        expected_cause="resolved_upstream_silent",
        prepare=partial(configure_resolved, servers=topology.BLACK_HOLE_SERVER, DNSOverTLS="no"),
    ),
    Fault(
        name="resolved_dnssec",
        sentence="systemd-resolved must validate answers, and its server signs none.",
        nameservers=(STUB,),
        servers=(
            ServerPlan((topology.SERVER_1,), ({"type": "A", "answer": [topology.WEB]}, {"answer": []})),
            Resolved(),
        ),
        expected_cause="rcode_retry",
        prepare=_validating,
    ),
    Fault(
        name="forwarder_upstream_silent",
        sentence="dnsmasq on 127.0.0.1 asks a server whose packets vanish.",
        nameservers=(FORWARDER,),
        servers=(Dnsmasq((topology.BLACK_HOLE_SERVER,)),),
        expected_cause="forwarder_upstream_silent",
    ),
    Fault(
        name="unbound_upstream_silent",
        sentence="unbound on 127.0.0.1 asks a server whose packets vanish.",
        nameservers=(FORWARDER,),
        servers=(Unbound(),),
        expected_cause="forwarder_upstream_silent",
        prepare=partial(configure_unbound, server=topology.BLACK_HOLE_SERVER),
    ),
)
