"""The table of the bench: a figure beside its budget, and whether it is met.

Owns: the row, medians, and how the table looks as text and as JSON.
Must not know: how anything is measured. Pure.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORDS = {True: "yes", False: "NO", None: "-"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure. Without a limit it is there to be read; without a value `note` says why."""

    what: str
    value: float | None
    unit: str = ""
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the budget is met; None when there is none, or nothing was measured."""
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What the table shows of it."""
        sign = "≥" if self.at_least else "≤"
        budget = "" if self.limit is None else f"{sign} {number(self.limit)} {self.unit}".rstrip()
        measured = "not measured" if self.value is None else f"{number(self.value)} {self.unit}".rstrip()
        return (self.what, budget, measured, WORDS[self.met], self.note)

    def as_json(self) -> dict[str, Any]:
        """For build/bench.json."""
        return {**asdict(self), "met": self.met}


def median(values: Iterable[float]) -> float:
    """The middle value, the mean of the two in the middle for an even count."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    upper = len(ordered) // 2
    lower = upper if len(ordered) % 2 else upper - 1
    return ordered[upper] if lower == upper else (ordered[lower] + ordered[upper]) / 2


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float | None:
    """The median of the ratios of the same round; rounds without a sensible divisor are left out."""
    ratios = [top / bottom for top, bottom in zip(over, under, strict=True) if bottom > 0]
    return median(ratios) if ratios else None


def number(value: float) -> str:
    """A number with three significant digits at most, thousands grouped."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def render(rows: Sequence[Row]) -> str:
    """The table as text, its columns aligned."""
    heads = ("what", "budget", "measured", "met", "")
    lines = [heads, *(row.cells for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    ruled = [lines[0], (*("-" * width for width in widths[:-1]), ""), *lines[1:]]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in ruled)
