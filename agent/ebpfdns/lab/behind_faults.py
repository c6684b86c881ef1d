"""Faults behind a local resolver: the program's own server works, the one behind it does not.

Owns: these entries of the table. Must not know: how a daemon is run (`real_daemons`), or a fault set up.
"""

from __future__ import annotations

from functools import partial

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, SilentListener
from ebpfdns.lab.real_daemons import (
    FORWARDER,
    STUB,
    Dnsmasq,
    Resolved,
    Unbound,
    configure_resolved,
    configure_unbound,
)

DOT_PORT = 853

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
        name="resolved_upstream_silent",
        sentence="systemd-resolved asks a server whose packets vanish.",
        nameservers=(STUB,),
        servers=(Resolved(),),
        expected_cause="resolved_upstream_silent",
        prepare=partial(configure_resolved, servers=topology.BLACK_HOLE_SERVER, DNSOverTLS="no"),
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
