"""Losses: each is told once, and what may hide a fact is remembered with its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.correlate.losses import HIDING, KERNEL_STAGES, REMEDIES, REMEMBERED, LossBook
from ebpfdns.model.boundary import Counter

TOTALS = st.dictionaries(st.sampled_from(sorted(REMEDIES)), st.integers(0, 1000))


@given(st.lists(TOTALS))
def test_each_loss_is_told_once(steps):
    """What is told adds up to the highest total of each stage, whatever order totals come in."""
    book = LossBook()
    told = {}
    for now_ns, totals in enumerate(steps):
        for stage, by in book.update(now_ns, totals).items():
            assert by > 0
            told[stage] = told.get(stage, 0) + by
    highest = {stage: max(step.get(stage, 0) for step in steps) for stage in REMEDIES if steps}
    assert told == book.totals == {stage: total for stage, total in highest.items() if total}


def test_losses_of_the_middle_count_with_the_others():
    """What the middle loses itself is added to what it knows of that stage."""
    book = LossBook()
    book.update(1, {"kernel_ring": 2})
    book.add(2, "frame_bad", 1)
    book.add(3, "frame_bad", 1)
    assert book.totals == {"kernel_ring": 2, "frame_bad": 2}
    assert book.update(4, {"kernel_ring": 2}) == {}


def test_only_what_was_lost_since_then_may_hide_something():
    """A loss before a lookup began hides nothing of it; one that hides nothing is not named at all."""
    book = LossBook()
    book.update(10, {"kernel_ring": 5, "name_cut": 1})
    book.update(20, {"kernel_ring": 7, "name_cut": 2, "output": 3})
    assert book.hiding_since(5) == {"kernel_ring": 7}
    assert book.hiding_since(11) == {"kernel_ring": 2}
    assert book.hiding_since(20) == {"kernel_ring": 2}
    assert book.hiding_since(21) == {}


def test_harmless_losses_do_not_push_out_harmful_ones():
    """However many names are cut afterwards, a full ring stays known."""
    book = LossBook()
    book.update(10, {"kernel_ring": 1})
    for step in range(3 * REMEMBERED):
        book.update(11 + step, {"name_cut": step + 1})
    assert book.hiding_since(10) == {"kernel_ring": 1}


def test_memory_is_bounded():
    """A ring that overflows all the time leaves the latest losses only, and they still warn."""
    book = LossBook()
    for step in range(3 * REMEMBERED):
        book.update(step, {"kernel_ring": step + 1})
    assert len(book._history) == REMEMBERED
    assert book.hiding_since(0) == {"kernel_ring": REMEMBERED}


def test_every_loss_counter_has_a_stage_and_a_remedy():
    """Each counter of lost things is told under a name of its own, with what helps."""
    assert sorted(KERNEL_STAGES.values()) == [
        counter for counter in Counter if counter.name.startswith("LOST")
    ]
    assert KERNEL_STAGES.keys() | HIDING <= REMEDIES.keys()
    assert all(REMEDIES.values())
