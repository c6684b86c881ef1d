"""`ipv6_first_blackholed`: IPv6 is tried first and goes nowhere; IPv4 would work.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.connections import syn
from ebpfdns.diagnose.wording import milliseconds, seconds, shown

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase
    from ebpfdns.model.facts import Sibling


def rule(case: ConnectCase) -> Cause | None:
    """The SYN to an IPv6 address had to be repeated; its lookup gave IPv4 addresses too, and none hangs."""
    connect = case.connect
    if not case.is_unanswered_application or connect.server is None or connect.family != "ipv6":
        return None
    others = [sibling for sibling in case.situation.siblings if ":" not in sibling.address]
    if not others or not connect.retransmits or any(sibling.in_flight for sibling in others):
        return None
    works = [sibling for sibling in others if sibling.connected_ns is not None]
    name = shown(connect.lookup_name or b"")
    known = f"{works[0].address} works" if works else f"it has IPv4 addresses too ({others[0].address})"
    return Cause(
        "ipv6_first_blackholed",
        "confirmed" if works else "likely",
        f"{name} is tried over IPv6 first, and {connect.server.text} does not answer; {known}.",
        (syn(case), _reached(case, works[0]) if works else _beside(others)),
        f"Repair the IPv6 route; try: nc -4vz -w3 {others[0].address} {connect.server.port}; "
        "until then put `precedence ::ffff:0:0/96 100` in /etc/gai.conf",
    )


def _reached(case: ConnectCase, sibling: Sibling) -> Evidence:
    """The same name is reachable over IPv4."""
    ago_ns = max(0, case.situation.now_ns - (sibling.connected_ns or 0))
    return Evidence(
        "ipv4_connected",
        f"{sibling.address}, which the same lookup gave, was connected to {seconds(ago_ns)} ago",
        {"address": sibling.address, "ago_ms": milliseconds(ago_ns)},
    )


def _beside(others: list[Sibling]) -> Evidence:
    """What else there would be to try."""
    text = f"the lookup gave {others[0].address} too, which was not tried yet"
    return Evidence("ipv4_not_tried", text, {"address": others[0].address, "addresses": len(others)})
