"""`connect_after_dns`: the name was resolved; it is the TCP connection to its address that hangs.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.connections import syn
from ebpfdns.diagnose.wording import shown

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase
    from ebpfdns.diagnose.cause import Confidence


def rule(case: ConnectCase) -> Cause | None:
    """A TCP connection to another port than DNS's is not answered."""
    connect = case.connect
    server = connect.server
    if server is None or not case.is_unanswered_application:
        return None
    name = connect.lookup_name
    origin = f" (the address of {shown(name)})" if name else ""
    evidence = [syn(case)]
    if name:
        text = f"{server.address} is an address that the lookup of {shown(name)} gave: DNS has done its part"
        evidence.append(Evidence("reply_seen", text, {"name": shown(name)}))
    target = "The name was resolved; it" if name else "It"
    return Cause(
        "connect_after_dns",
        _confidence(case),
        f"{target} is the TCP connection to {server.text}{origin} that is not answered.",
        tuple(evidence),
        f"Try: nc -vz -w3 {server.address} {server.port}; open the port, or go through a proxy "
        "(HTTPS_PROXY; GOPROXY for Go modules)",
    )


def _confidence(case: ConnectCase) -> Confidence:
    """The deciding facts: a lookup gave the address, and the SYN had to be repeated."""
    connect = case.connect
    if connect.lookup_name is None:
        return "possible"
    return "confirmed" if connect.retransmits else "likely"
