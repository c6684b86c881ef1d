"""What the agent removes because no program in the kernel can: questions whose lookup is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.model import boundary
from ebpfdns.model.boundary import Counter, LookupFlag, Status
from ebpfdns.observe import leftovers


class Maps:
    """The two maps that matter here, as dictionaries."""

    def __init__(self, asked: dict[tuple[int, int], int], lookups: set[int]) -> None:
        self.asked, self.lookups = dict(asked), lookups
        self.records: dict[int, bytes] = {}
        self.ends: list[tuple[Counter, int | None, int]] = []

    def open_lookups(self, _: int) -> list[bytes]:
        return list(self.records.values())

    def lookup_of(self, key: int) -> bytes | None:
        return self.records.get(key)

    def drop_lookup(self, key: int) -> bool:
        return self.records.pop(key, None) is not None

    def count_end(self, counter: Counter, took_ns: int | None, unanswered: int) -> None:
        self.ends.append((counter, took_ns, unanswered))

    def questions(self) -> list[tuple[int, int, int]]:
        return [(socket, number, key) for (socket, number), key in self.asked.items()]

    def has_lookup(self, key: int) -> bool:
        return key in self.lookups

    def forget_question(self, socket: int, number: int) -> None:
        self.asked.pop((socket, number), None)


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


A, AAAA = 1, 28


def record(*queries: dict[str, int], **fields: int) -> bytes:
    """A struct lookup with these queries."""
    raw = bytearray(boundary.LOOKUP_BYTES)
    for structure, at, wanted in (
        (boundary.LOOKUP, 0, {"start_ns": 3, "query_count": len(queries)} | fields),
        *(
            (boundary.QUERY, boundary.LOOKUP.size + number * boundary.QUERY.size, query)
            for number, query in enumerate(queries)
        ),
    ):
        places = {name: (offset, size) for name, offset, size in structure.offsets()}
        for name, value in wanted.items():
            offset, size = places[name]
            raw[at + offset : at + offset + size] = value.to_bytes(size, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (record({"type": A, "attempts": 1}, {"type": AAAA, "attempts": 1}), False),
        (record({"type": A, "attempts": 2}), True),
        (record({"type": A, "attempts": 1}, {"type": A, "attempts": 1}), True),  # of another server
    ],
)
def test_who_has_asked_again(raw: bytes, expected: bool) -> None:  # noqa: FBT001 - a table
    """A question that left twice, to whomever, was asked again."""
    assert leftovers.has_asked_again(raw) is expected


def test_latest_packet() -> None:
    """Sent, sent again, or answered: the latest of all questions counts."""
    assert leftovers.latest_packet_ns(record()) == 3
    assert (
        leftovers.latest_packet_ns(record({"sent_ns": 7, "resent_ns": 11}, {"sent_ns": 5, "reply_ns": 13}))
        == 13
    )


LEFT, MOVED = int(LookupFlag.LEFT), int(LookupFlag.MOVED)


def test_ends_of_those_without_a_socket() -> None:
    """They have failed when their socket was closed, and the unanswered question is counted."""
    maps = Maps({}, set())
    maps.records = {
        1: record({"sent_ns": 3}, key=1, pid=11, flags=LEFT | MOVED, end_ns=1009),
        2: record({"sent_ns": 3}, key=2, pid=13, flags=LEFT, end_ns=1013),
        3: record({"sent_ns": 3}, key=3, pid=11, flags=MOVED),  # it goes on
    }
    (frame,) = leftovers.end_left(maps, 11)  # type: ignore[arg-type]
    ended = boundary.LOOKUP.unpack(frame)
    assert (ended.key, ended.end_ns, ended.status) == (1, 1009, Status.FAILED)
    assert ended.flags == MOVED | LookupFlag.SOCKET_CLOSED
    assert maps.ends == [(Counter.LOOKUPS_FAILED, 1006, 1)]
    assert [boundary.LOOKUP.unpack(raw).key for raw in leftovers.end_left(maps)] == [2]  # type: ignore[arg-type]
    assert sorted(maps.records) == [3]


def test_one_that_goes_on_meanwhile_is_not_ended() -> None:
    """A program that asks again between the look and the end has its lookup left alone."""
    maps = Maps({}, set())
    seen = record({"sent_ns": 3}, key=1, flags=LEFT, end_ns=1009)
    maps.records = {1: record({"sent_ns": 3}, {"sent_ns": 1010}, key=1, flags=MOVED)}
    assert leftovers.end_as_left(maps, seen) is None  # type: ignore[arg-type]
    assert maps.ends == []
