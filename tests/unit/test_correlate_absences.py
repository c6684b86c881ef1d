"""When a thread that is away from its event loop is told of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.correlate.absences import Absences

S = 1_000_000_000


def test_an_absence_is_told_as_it_doubles() -> None:
    """At 1, 2 and 4 s, in between not; 3 s late is late once."""
    absences = Absences(S)
    told = [absences.tell(7, 1, 0, quarter * S // 4) for quarter in range(17)]
    assert {quarter / 4: update for quarter, update in enumerate(told) if update} == {1: 1, 2: 2, 4: 3}


def test_a_return_begins_anew() -> None:
    """Whoever was back is away anew, with number 1."""
    absences = Absences(S)
    assert absences.tell(7, 1, 0, S) == 1
    assert absences.tell(7, 1, 2 * S, 2 * S + S // 2) is None
    assert absences.tell(7, 1, 2 * S, 3 * S) == 1


def test_threads_do_not_share_an_absence() -> None:
    """Each thread has its own, and a process that is gone leaves none."""
    absences = Absences(S)
    assert [absences.tell(key, key, 0, S) for key in (7, 8)] == [1, 1]
    absences.forget(7)
    assert [absences.is_due(key, 0, S) for key in (7, 8)] == [True, False]


@given(st.lists(st.integers(0, 100 * S), max_size=20), st.integers(0, 3 * S))
def test_updates_count_up(looks: list[int], stuck_after_ns: int) -> None:
    """However it is looked at: 1, 2, 3 …, each at twice the length of the one before at least."""
    absences = Absences(stuck_after_ns)
    told = [(now, update) for now in sorted(looks) if (update := absences.tell(7, 1, 0, now)) is not None]
    assert [update for _, update in told] == list(range(1, len(told) + 1))
    assert all(now >= max(stuck_after_ns, 1) for now, _ in told)
