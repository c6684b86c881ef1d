"""Facts about TCP connections, put into words: what several rules about connects tell.

Owns: the sentence and the numbers of a piece of evidence. Must not know: what follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.wording import milliseconds, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase


def syn(case: ConnectCase) -> Evidence:
    """How often the connection was asked for."""
    connect = case.connect
    peer = connect.server.text if connect.server else ""
    age = case.lasted(case.elapsed_ns)
    again = f"was sent again {times(connect.retransmits)}" if connect.retransmits else "was sent once so far"
    return Evidence(
        "syn_retransmitted",
        f"the SYN to {peer} {again} in {age}",
        {"peer": peer, "retransmits": connect.retransmits, "elapsed_ms": milliseconds(case.elapsed_ns)},
    )
