"""The addresses of a sandbox, and the network that gives them their behaviour.

Owns: which address answers, which is a black hole, which has no route.
Must not know: DNS, faults, processes.

A true black hole needs no firewall: a veth pair inside the namespace, its far end up but without an address,
and a permanent neighbour entry with a MAC address nobody has. Packets leave, are counted as sent, and vanish:
UDP gets no ICMP, TCP stays in SYN_SENT and retransmits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ebpfdns.netlink import Network

#: What the programs of the lab look up.
NAME = "www.lab.test"
#: Addresses (RFC 5737, RFC 3849: for documentation) on `lo`: whatever listens there answers.
SERVER_1 = "192.0.2.53"
SERVER_2 = "192.0.2.54"
SERVER_1_V6 = "2001:db8::53"
SERVER_2_V6 = "2001:db8::54"
WEB = "192.0.2.10"
WEB_V6 = "2001:db8::10"
#: Addresses behind the veth pair: nothing ever comes back.
BLACK_HOLE = "192.0.2.80"
BLACK_HOLE_V6 = "2001:db8::80"
BLACK_HOLE_SERVER = "192.0.2.99"
BLACK_HOLE_SERVER_V6 = "2001:db8::99"
#: An address no route leads to: connect and send fail at once with ENETUNREACH.
NO_ROUTE = "198.51.100.53"

LOOPBACK_V4 = (SERVER_1, SERVER_2, WEB)
LOOPBACK_V6 = (SERVER_1_V6, SERVER_2_V6, WEB_V6)
BLACK_HOLES_V4 = (BLACK_HOLE, BLACK_HOLE_SERVER)
BLACK_HOLES_V6 = (BLACK_HOLE_V6, BLACK_HOLE_SERVER_V6)

NEAR, FAR = "hole0", "hole1"
SOURCE_V4, SOURCE_V6 = "192.0.2.1/32", "2001:db8::1/128"
FOREIGN_MAC = "02:00:00:00:00:99"


def build(network: Network, *, ipv6: bool) -> None:
    """Make a fresh namespace's network: lo with the servers' addresses, and the black hole."""
    network.set_up("lo")
    for address in LOOPBACK_V4 + (LOOPBACK_V6 if ipv6 else ()):
        network.add_address("lo", address)
    network.add_veth(NEAR, FAR)
    network.set_up(FAR)
    network.set_up(NEAR)
    for source in (SOURCE_V4, SOURCE_V6) if ipv6 else (SOURCE_V4,):
        network.add_address(NEAR, source)
    for address in BLACK_HOLES_V4 + (BLACK_HOLES_V6 if ipv6 else ()):
        network.add_neighbour(NEAR, address, FOREIGN_MAC)
        network.add_route(f"{address}/{128 if ':' in address else 32}", link=NEAR)
