"""Packets that wait for missing fragments in the network namespace of a process.

Owns: /proc/TID/net/{sockstat,sockstat6,snmp,snmp6}. Must not know: what follows from them.

The kernel keeps an incomplete packet for 30 s; after that it counts as a failure to put one together.
"""

from __future__ import annotations

import re

from ebpfdns.observe import proc_files

_WAITING = re.compile(r"^FRAG6?: inuse (\d+)", re.MULTILINE)
_FAILED_V6 = re.compile(r"^Ip6ReasmFails\s+(\d+)", re.MULTILINE)
FILES = ("sockstat", "sockstat6", "snmp", "snmp6")  # those for IPv6 are not everywhere


def fragments(tid: int) -> dict[str, int] | None:
    """{incomplete: packets held now, failed: given up since it began}; None: they cannot be read."""
    return parse(*(proc_files.text(f"/proc/{tid}/net/{name}") for name in FILES))


def parse(sockstat: str, sockstat6: str, snmp: str, snmp6: str) -> dict[str, int] | None:
    """Both numbers, over both families; None when those of IPv4 are not there."""
    incomplete = [int(count) for text in (sockstat, sockstat6) for count in _WAITING.findall(text)]
    failed = _column(snmp, "Ip", "ReasmFails")
    if not incomplete or failed is None:
        return None
    return {"incomplete": sum(incomplete), "failed": failed + sum(map(int, _FAILED_V6.findall(snmp6)))}


def _column(snmp: str, family: str, name: str) -> int | None:
    """A number of the table: a line of names, and below it one of numbers."""
    rows = [line.split()[1:] for line in snmp.splitlines() if line.startswith(f"{family}: ")]
    if len(rows) != 2 or name not in rows[0] or len(rows[0]) != len(rows[1]):  # noqa: PLR2004 - names, numbers
        return None
    word = rows[1][rows[0].index(name)]
    return int(word) if word.isascii() and word.isdigit() else None
