"""What the agent removes because no program in the kernel can: questions whose lookup is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import leftovers


class Maps:
    """The two maps that matter here, as dictionaries."""

    def __init__(self, asked: dict[tuple[int, int], int], lookups: set[int]) -> None:
        self.asked, self.lookups = dict(asked), lookups

    def questions(self) -> list[tuple[int, int, int]]:
        return [(socket, number, key) for (socket, number), key in self.asked.items()]

    def has_lookup(self, key: int) -> bool:
        return key in self.lookups

    def forget_question(self, socket: int, number: int) -> None:
        del self.asked[socket, number]


SMALL = st.integers(0, 9)


@given(st.dictionaries(st.tuples(SMALL, SMALL), SMALL), st.sets(SMALL))
def test_only_questions_without_a_lookup_are_forgotten(
    asked: dict[tuple[int, int], int], lookups: set[int]
) -> None:
    """After a sweep exactly the questions are left whose lookup is open, and the others were counted."""
    maps = Maps(asked, lookups)
    forgotten = leftovers.forget_orphan_questions(maps)  # type: ignore[arg-type]
    kept = {question: key for question, key in asked.items() if key in lookups}
    assert maps.asked == kept
    assert forgotten == len(asked) - len(kept)
