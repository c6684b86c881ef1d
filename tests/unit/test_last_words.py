"""What was last said of open things is kept until they end, by thing and by process."""

from __future__ import annotations

from ebpfdns.correlate.last_words import LastWords, Told
from ebpfdns.diagnose.cause import Cause
from ebpfdns.model.facts import Lookup


def told(key: int, pid: int, cause: str = "ns_silent") -> Told:
    lookup = Lookup(key, 7, pid, pid, pid, "getaddrinfo", "in_flight")
    return Told(f"{pid}-{key}", lookup, Cause(cause, "likely", "It is so.", (), "Try: this"))


def test_the_latest_word_replaces_the_one_before() -> None:
    """A thing has one word, the last, and it can be taken once."""
    words = LastWords()
    words.keep(("lookup", 1, 7), told(1, 11))
    words.keep(("lookup", 1, 7), told(1, 11, "first_ns_dead"))
    assert [word.cause.id for word in words.of_process(11)] == ["first_ns_dead"]
    taken = words.take(("lookup", 1, 7))
    assert taken is not None
    assert taken.cause.id == "first_ns_dead"
    assert words.take(("lookup", 1, 7)) is None
    assert list(words.of_process(11)) == []


def test_a_process_has_its_own_words_only() -> None:
    """What other processes wait for is not among them, and the order is that of the first telling."""
    words = LastWords()
    for key, pid in ((1, 11), (2, 13), (3, 11), (1, 11)):
        words.keep(("lookup", key, 7), told(key, pid))
    assert [word.id for word in words.of_process(11)] == ["11-1", "11-3"]
    assert words.take(("lookup", 2, 7)) is not None
    assert list(words.of_process(13)) == []
