"""docs/limitations.md: its numbers are the code's, and what it says is missing is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebpfdns.cli import COMMANDS
from ebpfdns.model import boundary
from ebpfdns.observe import plan, scanner, sources, target, tracees

ROOT = Path(__file__).parents[2]
TEXT = " ".join((ROOT / "docs/limitations.md").read_text().split())
SIZES = sources.Sizes()
TARGETS = re.search(r"BPF_HASH\(targets, u32, u64, (\d+)\)", (sources.directory() / "maps.c").read_text())
SUPPORTING = re.search(r"#define MAX_SUPPORTING (\d+)", (sources.directory() / "maps.c").read_text())
NS_PER_S = 1_000_000_000


@pytest.mark.parametrize(
    "sentence",
    [
        f"{int(TARGETS[1]) if TARGETS else 0:,} targets",
        f"Of followed daemons {int(SUPPORTING[1]) if SUPPORTING else 0:,} questions are kept",
        f"{SIZES.lookups:,} lookups and {SIZES.connects:,} connects open at once, {SIZES.calls:,} threads",
        f"Names over {boundary.QUERY_NAME_BYTES} bytes",
        f"up to {boundary.LOOKUP_NAME_BYTES - 1} bytes",
        f"{scanner.WIRE_GIVEN_UP_NS // NS_PER_S} s after its last packet",
        f"within {tracees.RESCAN_EVERY_NS // NS_PER_S} seconds",
        f"every {plan.OPEN_NS // plan.MS} ms while something is open",
        f"{plan.IDLE_NS // plan.MS} ms otherwise",
    ],
)
def test_each_number_is_the_codes(sentence: str) -> None:
    """Sizes, limits and times stand in the page as they are in the code."""
    assert sentence in TEXT


def test_eight_queries_are_kept() -> None:
    """The number that the page spells out."""
    assert boundary.MAX_QUERIES == 8
    assert "**Eight queries** of a lookup are kept" in TEXT


def test_what_is_not_there_yet_is_not_there() -> None:
    """Once a command exists that chooses its targets, the page must not deny it."""
    assert "agent" not in COMMANDS
    assert "choosing targets by name, container or pod is not there yet" in TEXT


def test_older_kernels_are_told_of_in_both_places() -> None:
    """What the coverage says on a kernel before 6.10 is in the page's list, too."""
    assert "6.10" in target.UDP_SOCKETS_BEFORE
    assert "**UDP sockets connected before** are seen from Linux 6.10 on" in TEXT


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", TEXT))
def test_links_lead_somewhere(link: str) -> None:
    """Each file that the page links to is there."""
    assert (ROOT / "docs" / link).exists()
