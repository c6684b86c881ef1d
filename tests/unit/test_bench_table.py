"""The bench's table and arithmetic: what a figure is worth depends on them."""

from __future__ import annotations

import runpy
from pathlib import Path
from statistics import median as exact_median

import pytest
from hypothesis import given
from hypothesis import strategies as st

TABLE = runpy.run_path(str(Path(__file__).parents[1] / "bench" / "table.py"))
Row, median, median_ratio, number, render = (
    TABLE[name] for name in ("Row", "median", "median_ratio", "number", "render")
)
FIGURES = st.floats(min_value=-1e9, max_value=1e9)


@given(st.lists(FIGURES, min_size=1))
def test_median(values: list[float]) -> None:
    """The median is the standard library's."""
    assert median(values) == pytest.approx(exact_median(values))


def test_median_of_nothing() -> None:
    """A median of no values is an error, not a number."""
    with pytest.raises(ValueError, match="no values"):
        median([])


@given(st.lists(st.floats(min_value=1, max_value=1e6), min_size=1), st.floats(min_value=0.01, max_value=100))
def test_ratio_is_of_the_same_round(under: list[float], factor: float) -> None:
    """When each round's ratio is the same, that is the median ratio, however the rounds differ."""
    assert median_ratio([value * factor for value in under], under) == pytest.approx(factor)


def test_ratio_without_a_divisor() -> None:
    """Rounds in which nothing was added cannot be divided by; without any other there is no ratio."""
    assert median_ratio([5.0, 6.0], [0.0, 3.0]) == 2.0
    assert median_ratio([5.0], [-1.0]) is None


@pytest.mark.parametrize(
    ("value", "limit", "at_least", "met"),
    [
        (1.25, 1.25, False, True),
        (1.26, 1.25, False, False),
        (20_000, 20_000, True, True),
        (19_999, 20_000, True, False),
        (None, 1.0, False, None),
        (3.0, None, False, None),
    ],
)
def test_met(value: float | None, limit: float | None, *, at_least: bool, met: bool | None) -> None:
    """A budget is met at its limit; what has no limit or was not measured is neither met nor missed."""
    assert Row(what="x", value=value, limit=limit, at_least=at_least).met is met


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.2345, "1.23"), (97.25, "97.2"), (20_412.7, "20,413"), (0.01234, "0.0123"), (-3.5, "-3.5")],
)
def test_number(value: float, text: str) -> None:
    """A figure is shown with three significant digits, thousands grouped."""
    assert number(value) == text


def test_table_is_aligned_and_complete() -> None:
    """The table shows budget, figure and verdict of each row, its columns under each other."""
    rows = [
        Row(what="short", value=2.0, unit="x", limit=1.25),
        Row(what="a longer name", value=None, limit=0.5, unit="%", note="bpftrace is not installed"),
    ]
    heading, ruler, first, second = render(rows).splitlines()
    assert first.split() == ["short", "≤", "1.25", "x", "2", "x", "NO"]
    assert second.endswith("not measured  -    bpftrace is not installed")
    assert heading.index("measured") == second.index("not measured") == ruler.rindex(" -", 0, -4) + 1
    assert heading.index("budget") == first.index("≤") == second.index("≤")


def test_json_has_the_verdict() -> None:
    """What is written for machines says whether the budget is met, too."""
    assert Row(what="x", value=1.0, limit=2.0).as_json()["met"] is True
