"""`connect_after_dns`: the name was resolved; it is the TCP connection to its address that hangs.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.wording import milliseconds, seconds, shown, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase
    from ebpfdns.diagnose.cause import Confidence

DNS_PORTS = (53, 853)
ETIMEDOUT = 110


def rule(case: ConnectCase) -> Cause | None:
    """A TCP connection to another port than DNS's is not answered."""
    connect = case.connect
    server = connect.server
    if server is None or connect.transport != "tcp" or connect.in_lookup or server.port in DNS_PORTS:
        return None
    if not _is_unanswered(case):
        return None
    name = connect.lookup_name
    origin = f" (the address of {shown(name)})" if name else ""
    evidence = [_syn(case)]
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


def _is_unanswered(case: ConnectCase) -> bool:
    """While in flight its SYN is out; once ended, it had to be sent again or ran into its time-out."""
    connect = case.connect
    if case.is_open:
        return connect.tcp_state == "SYN_SENT"
    return connect.retransmits > 0 or connect.error == ETIMEDOUT


def _confidence(case: ConnectCase) -> Confidence:
    """The deciding facts: a lookup gave the address, and the SYN had to be repeated."""
    connect = case.connect
    if connect.lookup_name is None:
        return "possible"
    return "confirmed" if connect.retransmits else "likely"


def _syn(case: ConnectCase) -> Evidence:
    connect = case.connect
    peer = connect.server.text if connect.server else ""
    age = seconds(case.elapsed_ns)
    again = f"was sent again {times(connect.retransmits)}" if connect.retransmits else "was sent once so far"
    return Evidence(
        "syn_retransmitted",
        f"the SYN to {peer} {again} in {age}",
        {"peer": peer, "retransmits": connect.retransmits, "elapsed_ms": milliseconds(case.elapsed_ns)},
    )
