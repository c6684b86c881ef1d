"""What was last said of open things is kept until they end, by thing and by process."""

from __future__ import annotations

from ebpfdns.correlate.last_words import MAX_OTHERS, LastWords, Told
from ebpfdns.diagnose.cause import Cause
from ebpfdns.model.facts import Lookup

NOBODY = ("lookup", 0, 0)


def told(key: int, pid: int, cause: str = "ns_silent") -> Told:
    lookup = Lookup(key, 7, pid, pid, pid, "getaddrinfo", "in_flight")
    return Told(f"{pid}-{key}", lookup, Cause(cause, "likely", "It is so.", (), "Try: this"))


def test_the_latest_word_replaces_the_one_before() -> None:
    """A thing has one word, the last, and it can be taken once."""
    words = LastWords()
    words.keep(("lookup", 1, 7), told(1, 11))
    words.keep(("lookup", 1, 7), told(1, 11, "first_ns_dead"))
    assert [other.cause_id for other in words.others(11, NOBODY)] == ["first_ns_dead"]
    taken = words.take(("lookup", 1, 7))
    assert taken is not None
    assert taken.cause.id == "first_ns_dead"
    assert words.take(("lookup", 1, 7)) is None
    assert words.others(11, NOBODY) == ()


def test_a_process_has_its_own_words_only() -> None:
    """What other processes wait for is not among them, and the order is that of the first telling."""
    words = LastWords()
    for key, pid in ((1, 11), (2, 13), (3, 11), (1, 11)):
        words.keep(("lookup", key, 7), told(key, pid))
    assert [other.id for other in words.others(11, NOBODY)] == ["11-1", "11-3"]
    assert words.take(("lookup", 2, 7)) is not None
    assert words.others(13, NOBODY) == ()


def test_the_first_of_a_storm_are_the_others_of_all() -> None:
    """However many there are, and whatever is told again or ends: the first that are open, but oneself."""
    words, names = LastWords(), [("lookup", key, 7) for key in range(41)]
    for name in names:
        words.keep(name, told(name[1], 11))
    first = [f"11-{key}" for key in range(MAX_OTHERS)]
    assert [other.id for other in words.others(11, names[40])] == first
    assert [other.id for other in words.others(11, names[2])] == [
        f"11-{key}" for key in range(MAX_OTHERS + 1) if key != 2
    ]
    words.keep(names[1], told(1, 11, "late_reply"))
    assert words.others(11, names[40])[1].cause_id == "late_reply"
    words.take(names[0])
    assert [other.id for other in words.others(11, names[40])] == [*first[1:], f"11-{MAX_OTHERS}"]
