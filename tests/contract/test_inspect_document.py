"""docs/inspect.md tells every finding that there is, with its severity."""

from __future__ import annotations

import re
from pathlib import Path

from ebpfdns.explain import findings

PAGE = Path(__file__).resolve().parents[2] / "docs/inspect.md"
SOURCE = Path(findings.__file__).read_text(encoding="utf-8")


def test_every_finding_is_explained() -> None:
    """The ids in the code are those of the table, no more and no fewer."""
    in_code = set(re.findall(r'"([a-z_]+)",\s*"(?:problem|warning|note)"', SOURCE))
    in_code |= set(re.findall(r'"([a-z_]+)" if is_dangling else "([a-z_]+)"', SOURCE)[0])
    in_code = in_code - set(findings.SEVERITIES) | {"descriptors_used_up"}
    rows = [row.split("|") for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row[1])} == in_code


def test_severities_are_those_of_the_code() -> None:
    """No other word stands in the column."""
    rows = [row.split("|") for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| `")]
    assert {word.strip() for row in rows for word in row[2].split(",")} == set(findings.SEVERITIES)
