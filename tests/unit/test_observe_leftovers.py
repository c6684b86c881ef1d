"""What the agent removes because no program in the kernel can: questions whose lookup is gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.model import boundary
from ebpfdns.model.boundary import QueryFlag
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


A, AAAA, SERVFAIL, NXDOMAIN = 1, 28, 2, 3
DONE = int(QueryFlag.ANSWERED)


def record(*queries: dict[str, int], more_queries: int = 0) -> bytes:
    """A struct lookup with these queries."""
    raw = bytearray(boundary.LOOKUP_BYTES)
    for structure, at, fields in (
        (boundary.LOOKUP, 0, {"start_ns": 3, "query_count": len(queries), "more_queries": more_queries}),
        *(
            (boundary.QUERY, boundary.LOOKUP.size + number * boundary.QUERY.size, query)
            for number, query in enumerate(queries)
        ),
    ):
        places = {name: (offset, size) for name, offset, size in structure.offsets()}
        for name, value in fields.items():
            offset, size = places[name]
            raw[at + offset : at + offset + size] = value.to_bytes(size, "little")
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (record({"type": A, "flags": DONE, "rcode": SERVFAIL}), True),
        (record({"type": A, "flags": DONE, "rcode": SERVFAIL}, {"type": AAAA, "flags": DONE}), True),
        (record({"type": A, "flags": DONE, "rcode": SERVFAIL}, {"type": AAAA}), False),  # one is missing
        (record({"type": A, "flags": DONE, "rcode": SERVFAIL}, more_queries=1), False),
        (record({"type": A, "flags": DONE, "rcode": NXDOMAIN}), False),  # that is an answer
        (record({"type": A, "flags": DONE}), False),
        (record(), False),
    ],
)
def test_who_may_ask_again(raw: bytes, expected: bool) -> None:  # noqa: FBT001 - a table
    """Only a lookup whose every question is answered, one of them with an error that resolvers try again."""
    assert leftovers.may_ask_again(raw) is expected


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
