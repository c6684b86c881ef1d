"""The tests themselves: what pytest needs to tell their files apart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
#: each is loaded with its folder, or is a program of its own
LOADED_BY_PATH = {"conftest.py", "run.py"}


def test_no_two_files_have_one_name() -> None:
    """Files of tests import each other by name alone: of two with one name, one is found twice."""
    names = Counter(path.name for path in TESTS.rglob("*.py") if path.name not in LOADED_BY_PATH)
    assert [name for name, times in names.items() if times > 1] == []
