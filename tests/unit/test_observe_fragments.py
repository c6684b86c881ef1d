"""Packets that wait for fragments, as the kernel counts them."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import fragments

SOCKSTAT = "sockets: used 283\nTCP: inuse 13 orphan 0 tw 2 alloc 17 mem 3\nFRAG: inuse 2 memory 4096\n"
SOCKSTAT6 = "TCP6: inuse 5\nUDP6: inuse 3\nFRAG6: inuse 1 memory 2048\n"
SNMP = "Ip: Forwarding ReasmOKs ReasmFails FragOKs\nIp: 2 11 7 0\nIcmp: InMsgs\nIcmp: 3\n"
SNMP6 = "Ip6ReasmOKs                     \t3\nIp6ReasmFails                   \t5\n"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((SOCKSTAT, SOCKSTAT6, SNMP, SNMP6), {"incomplete": 3, "failed": 12}),
        ((SOCKSTAT, "", SNMP, ""), {"incomplete": 2, "failed": 7}),  # a kernel without IPv6
        (("", SOCKSTAT6, "", SNMP6), None),
        ((SOCKSTAT, "", "Ip: Forwarding ReasmFails\n", ""), None),
        ((SOCKSTAT, "", "Ip: Forwarding\nIp: 2\n", ""), None),
    ],
)
def test_both_families(texts: tuple[str, str, str, str], expected: dict[str, int] | None) -> None:
    """The numbers of both are added; without those of IPv4 there are none."""
    assert fragments.parse(*texts) == expected


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_text(texts: list[str]) -> None:
    """Whatever stands there, the result is two numbers or nothing."""
    found = fragments.parse(*texts)
    assert found is None or all(value >= 0 for value in found.values())


def test_of_this_process() -> None:
    """The real files are understood."""
    assert fragments.fragments(os.getpid()) is not None
