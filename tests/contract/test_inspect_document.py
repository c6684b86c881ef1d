"""docs/inspect.md tells every finding that there is, with its severity, and every conclusion."""

from __future__ import annotations

import re
from pathlib import Path

from ebpfdns.explain import findings
from ebpfdns.publish.schema.inspection_comparison import CONCLUSIONS

PAGE = Path(__file__).resolve().parents[2] / "docs/inspect.md"
SOURCE = Path(findings.__file__).read_text(encoding="utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """The table's rows below this heading, cell by cell."""
    part = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}")[2].partition("\n## ")[0]
    return [row.split("|") for row in part.splitlines() if row.startswith("| `")]


def test_every_finding_is_explained() -> None:
    """The ids in the code are those of the table, no more and no fewer."""
    in_code = set(re.findall(r'"([a-z_]+)",\s*"(?:problem|warning|note)"', SOURCE))
    in_code |= set(re.findall(r'"([a-z_]+)" if is_dangling else "([a-z_]+)"', SOURCE)[0])
    in_code = in_code - set(findings.SEVERITIES) | {"descriptors_used_up"}
    rows = rows_of("Findings")
    assert {name for row in rows for name in re.findall(r"`([a-z_]+)`", row[1])} == in_code


def test_severities_are_those_of_the_code() -> None:
    """No other word stands in the column."""
    rows = rows_of("Findings")
    assert {word.strip() for row in rows for word in row[2].split(",")} == set(findings.SEVERITIES)


def test_every_conclusion_is_explained() -> None:
    """Of `--name`: the ids of the schema, no more and no fewer."""
    told = [name for row in rows_of("The same name") for name in re.findall(r"`([a-z_]+)`", row[1])]
    assert sorted(told) == sorted(CONCLUSIONS)
