"""The page with every fault against every cause is of today's faults and causes."""

from __future__ import annotations

import re
from pathlib import Path

from ebpfdns.diagnose.catalogue import CATALOGUE, IDS
from ebpfdns.lab.faults import FAULTS

TEXT = (Path(__file__).resolve().parents[2] / "docs/matrix.md").read_text(encoding="utf-8")
TABLE, MATRIX = re.findall(r"```\n(.*?)```", TEXT, re.DOTALL)
AGAIN = "sudo make matrix"


def test_every_fault_has_a_row() -> None:
    """Each fault of the lab was played, in the order of the lab, and was explained rightly."""
    rows = [line.split() for line in TABLE.splitlines()[2:]]
    assert [row[0] for row in rows] == list(FAULTS), AGAIN
    for row in rows:
        assert row[-1] == "right", row
        assert row[1] == (FAULTS[row[0]].expected_cause or "nothing"), AGAIN


def test_every_cause_has_a_column() -> None:
    """The columns are the catalogue, and the brackets stand at the cause that each fault makes."""
    head, *rows = MATRIX.splitlines()
    assert head.split() == [str(number) for number in range(1, len(IDS) + 1)]
    assert re.findall(r"(\d+) `(\w+)`", TEXT) == [(str(n), cause) for n, cause in enumerate(IDS, 1)], AGAIN
    for name, row in zip(FAULTS, rows, strict=True):
        cells = re.findall(r"[ \[]([clp.])[ \]]?", row.removeprefix(name))
        bracketed = [
            IDS[n] for n, cell in enumerate(re.findall(r"\[?[clp.]\]?", row[len(name) :])) if "[" in cell
        ]
        assert len(cells) == len(IDS)
        assert bracketed == [cause for cause in [FAULTS[name].expected_cause] if cause]


def test_every_cause_has_a_fault() -> None:
    """Who adds a rule adds a fault that makes its cause; these few are made in tests of their own."""
    made = {fault.expected_cause for fault in FAULTS.values()}
    elsewhere = {entry.id for entry in CATALOGUE if entry.is_implemented} - made
    assert elsewhere <= MADE_ELSEWHERE


#: What a demo cannot make, or not with a program that looks one name up: other tests make it.
MADE_ELSEWHERE = {"coalesced_wait", "go_cgo_thread_limit", "agent_blind", "unknown"}
