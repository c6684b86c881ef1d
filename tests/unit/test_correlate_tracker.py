"""The state machine: what is told of when, under which id, and that each thing ends once."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ebpfdns.correlate import tracker as module
from ebpfdns.correlate.tracker import Tracked, Tracker

S = 1_000_000_000
WALL_NS = 1_700_000_000 * S
PID = 4242
START_NS = 100 * S
LOOKUP = ("lookup", 7, START_NS)
CONNECT = ("connect", 7, START_NS)


def seen(tracker, name=LOOKUP, at=1.0):
    """The number of the update told when the thing is seen open this many seconds after its start."""
    tracked = tracker.is_open(name, PID, name[2] + round(at * S), WALL_NS)
    return tracked and tracked.updates


def ended(tracker, name=LOOKUP, at=1.0):
    """The id under which the end is told, if it is."""
    tracked = tracker.ends(name, PID, name[2] + round(at * S), WALL_NS)
    return tracked and tracked.id


def test_step_by_step():
    """The whole state after each step of a lookup that gets stuck, is told again, and ends."""
    tracker = Tracker(1 * S)
    expected = Tracked("4242-1", LOOKUP, PID, WALL_NS - 1 * S, updates=1, next_age_ns=2 * S)
    tracker.is_open(LOOKUP, PID, START_NS + 1 * S, WALL_NS)
    assert (tracker._tracked, tracker.stuck, tracker.open_names()) == (
        {LOOKUP: expected},
        {"lookup": 1},
        [LOOKUP],
    )
    tracker.is_open(LOOKUP, PID, START_NS + 2 * S, WALL_NS + 1 * S)
    expected.updates, expected.next_age_ns = 2, 4 * S
    assert tracker._tracked == {LOOKUP: expected}
    assert tracker.vanish([LOOKUP]) == []
    expected.strikes = 1
    assert tracker._tracked == {LOOKUP: expected}
    assert tracker.ends(LOOKUP, PID, START_NS + 3 * S, WALL_NS + 2 * S) == expected
    assert (tracker._tracked, tracker.open_names(), tracker.ended_twice) == ({}, [], 0)
    assert tracker.ends(LOOKUP, PID, START_NS + 3 * S, WALL_NS + 2 * S) is None
    assert (tracker._tracked, tracker.stuck, tracker.ended_twice) == ({}, {"lookup": 1}, 1)


def test_told_when_its_age_doubles():
    """Lines come at 1, 2, 4, 8 s of age and at no other time, with `--stuck-after 1s`."""
    tracker = Tracker(1 * S)
    told = [(tenth / 10, seen(tracker, at=tenth / 10)) for tenth in range(170)]
    assert [(at, update) for at, update in told if update] == [(1, 1), (2, 2), (4, 3), (8, 4), (16, 5)]


@pytest.mark.parametrize(("first", "then"), [(1.0, 2.0), (1.9, 2.0), (3.0, 4.0), (5.0, 8.0), (600.0, 1024.0)])
def test_found_late_keeps_the_rhythm(first, then):
    """One that is found late is told at once, once, and next when its age reaches the next doubling."""
    tracker = Tracker(1 * S)
    assert seen(tracker, at=first) == 1
    assert tracker.next_due_ns(LOOKUP) == START_NS + round(then * S)
    assert seen(tracker, at=then - 0.001) is None
    assert seen(tracker, at=then) == 2


@given(st.integers(1, 10**11), st.lists(st.integers(0, 10**12), max_size=20))
def test_never_told_before_it_is_due(stuck_after_ns, ages_ns):
    """No line before `stuck_after`; between two lines at least one doubling lies; due and told agree."""
    tracker = Tracker(stuck_after_ns)
    doublings = []
    for age_ns in sorted(ages_ns):
        is_due = tracker.is_due(LOOKUP, START_NS + age_ns)
        due_at_ns = tracker.next_due_ns(LOOKUP)
        tracked = tracker.is_open(LOOKUP, PID, START_NS + age_ns, WALL_NS)
        assert (tracked is not None) == is_due == (START_NS + age_ns >= due_at_ns)
        if tracked is not None:
            assert age_ns >= stuck_after_ns
            doublings.append((age_ns // stuck_after_ns).bit_length())
    assert doublings == sorted(set(doublings))


def test_an_end_that_was_never_stuck_gets_an_id():
    """A lookup that ends without having been stuck is told once, under an id of its own."""
    tracker = Tracker(1 * S)
    assert [ended(tracker, at=0.2), ended(tracker, at=0.2)] == ["4242-1", None]
    assert not tracker.stuck


def test_ended_is_not_opened_again():
    """A sighting that is older than the end it comes after does not bring a lookup back."""
    tracker = Tracker(1 * S)
    ended(tracker, at=1.5)
    assert seen(tracker, at=1.6) is None
    assert not tracker.is_due(LOOKUP, START_NS + 99 * S)


def test_a_key_that_is_used_again_is_another_thing():
    """The same thread's next lookup, or a connect of the same number, has its own updates, end and id."""
    tracker = Tracker(1 * S)
    later = ("lookup", 7, START_NS + 10 * S)
    assert [seen(tracker), ended(tracker), seen(tracker, later), seen(tracker, CONNECT)] == [
        1,
        "4242-1",
        1,
        1,
    ]
    assert [ended(tracker, later), ended(tracker, CONNECT)] == ["4242-2", "4242-c3"]


def test_ids_count_for_each_process():
    """Each process has its own numbers; lookups and connects share them."""
    tracker = Tracker(1 * S)
    things = ((LOOKUP, 1), (CONNECT, 1), (("lookup", 8, START_NS), 2), (LOOKUP, 1))
    assert [tracker.identity(name, pid) for name, pid in things] == ["1-1", "1-c2", "2-1", "1-1"]


def test_an_id_that_was_given_early_is_kept():
    """A lookup that a connect has named already is told under that id."""
    tracker = Tracker(1 * S)
    early = tracker.identity(LOOKUP, PID)
    assert (seen(tracker), ended(tracker)) == (1, early)


def test_lost_only_when_missed_twice_in_a_row():
    """One missed sighting proves nothing, and two with a sighting between them do not either."""
    tracker = Tracker(1 * S)
    seen(tracker)
    assert tracker.vanish([LOOKUP]) == []
    assert tracker.vanish([]) == []  # it was seen again, though no line was due
    assert tracker.vanish([LOOKUP]) == []
    assert seen(tracker, at=2) == 2
    assert tracker.vanish([LOOKUP]) == []
    assert tracker.vanish([LOOKUP]) == [LOOKUP]


def test_what_was_never_told_cannot_vanish():
    """Nothing is said of the end of a thing that was never said to be stuck."""
    tracker = Tracker(1 * S)
    assert [tracker.vanish([LOOKUP]) for _ in range(3)] == [[], [], []]


def test_a_storm_does_not_make_it_forget_what_could_come_back():
    """Healthy lookups by the thousand do not push out the memory of one that was stuck and has ended."""
    tracker = Tracker(1 * S)
    seen(tracker)
    ended(tracker, at=1.5)
    for key in range(3 * module.REMEMBERED):
        ended(tracker, ("lookup", 1000 + key, START_NS), at=0.01)
    assert len(tracker._ended) <= module.REMEMBERED
    assert seen(tracker, at=1.6) is None
    assert ended(tracker, at=1.6) is None


class Life(RuleBasedStateMachine):
    """Sightings, ends and disappearances in any order, with keys that are used again."""

    def __init__(self):
        super().__init__()
        self.tracker = Tracker(1 * S)
        self.now_ns = START_NS
        self.begun = [("lookup", 1, START_NS)]
        self.updates = {}
        self.ids = {}
        self.ended = set()

    @rule(kind=st.sampled_from(("lookup", "connect")), key=st.integers(1, 3))
    def begins(self, kind, key):
        """Another thing begins, perhaps with a key that was used before."""
        name = (kind, key, self.now_ns)
        if name not in self.begun:
            self.begun.append(name)

    @rule(milliseconds=st.integers(1, 5000))
    def time_passes(self, milliseconds):
        """The clock goes on."""
        self.now_ns += milliseconds * 1_000_000

    @rule(data=st.data())
    def is_seen(self, data):
        """One of the things is seen open, in time or too late."""
        name = data.draw(st.sampled_from(self.begun))
        tracked = self.tracker.is_open(name, PID, self.now_ns, WALL_NS)
        if tracked is None:
            return
        assert name not in self.ended
        assert self.now_ns - name[2] >= 1 * S
        self.updates[name] = self.updates.get(name, 0) + 1
        assert tracked.updates == self.updates[name]
        assert self.ids.setdefault(name, tracked.id) == tracked.id

    @rule(data=st.data())
    def ends(self, data):
        """The end of one is told, perhaps for the second time."""
        name = data.draw(st.sampled_from(self.begun))
        self.check_end(name, self.tracker.ends(name, PID, self.now_ns, WALL_NS))

    @precondition(lambda self: self.tracker.open_names())
    @rule(data=st.data())
    def vanishes(self, data):
        """Some of those that were told of are not open any more."""
        names = data.draw(st.lists(st.sampled_from(self.tracker.open_names()), unique=True))
        for name in self.tracker.vanish(names):
            assert name in names
            self.check_end(name, self.tracker.ends(name, PID, self.now_ns, WALL_NS))

    def check_end(self, name, tracked):
        """An end is told exactly once, under the id of the lines before it."""
        assert (tracked is None) == (name in self.ended)
        if tracked is not None:
            self.ended.add(name)
            assert self.ids.setdefault(name, tracked.id) == tracked.id

    @invariant()
    def what_was_stuck_is_open_or_ended(self):
        """Each thing that was told of is either open still, or its end was told."""
        assert set(self.tracker.open_names()) == self.updates.keys() - self.ended
        assert sum(self.tracker.stuck.values()) == len(self.updates)

    @invariant()
    def ids_are_unique(self):
        """No id is given to two things."""
        assert len(set(self.ids.values())) == len(self.ids)

    def teardown(self):
        """At last everything vanishes: then every stuck thing has had its one end."""
        for _ in range(module.STRIKES):
            for name in self.tracker.vanish(self.tracker.open_names()):
                self.check_end(name, self.tracker.ends(name, PID, self.now_ns, WALL_NS))
        assert self.updates.keys() <= self.ended
        assert self.tracker.open_names() == []


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
