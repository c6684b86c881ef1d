"""Goroutines put together to lookups: who waits, who works for whom, and which name is sure."""

from __future__ import annotations

from typing import Any

import pytest

from ebpfdns.observe.go_waits import (
    FLIGHT,
    LOOKUP_IP_ADDR,
    MARKS,
    RESOLVER,
    Found,
    Part,
    Question,
    Text,
    spill_places,
    together,
    told,
)
from ebpfdns.observe.goroutines import Goroutine

HOST = Text(0xC000, b"www.lab.test")
LOOKUP_HOST, LOOKUP_TXT = RESOLVER + "LookupHost", RESOLVER + "LookupTXT"


def goroutine(number: int, parent: int | None = 0) -> Goroutine:
    return Goroutine(number, 0x1000 * number, parent, 1, 1, 2, None)


def question(name: str = "www.lab.test.", kind: str = "A", context: int = 7) -> Question:
    return Question(name, kind, 4711, ("192.0.2.53", 53), "udp", 5, context)


def caller(number: int, host: Text | None = HOST, parent: int | None = 0, **fields: Any) -> Part:
    calls = fields.pop("calls", (LOOKUP_IP_ADDR,))
    return Part(goroutine(number, parent), calls, (host,) if host else (), **fields)


def flight(number: int, parent: int | None, host: Text = HOST, context: int = 7) -> Part:
    return Part(goroutine(number, parent), is_flight=True, context=context, worked_on=host)


def asker(number: int, parent: int | None, **fields: Any) -> Part:
    return Part(goroutine(number, parent), question=question(**fields))


def seen(parts: list[Part]) -> list[tuple[int, bytes | None, int | None, list[str]]]:
    return [
        (
            found.goroutine.id,
            found.host and found.host.bytes,
            found.flight and found.flight.id,
            [asked.type for asked in found.questions],
        )
        for found in together(parts)
    ]


def test_the_caller_has_the_questions_of_those_who_work_for_it():
    """The goroutines of a lookup are one lookup, and others that wait for the same name have no questions."""
    parts = [caller(1), caller(2), flight(3, 2), asker(4, 3), asker(5, 3, kind="AAAA"), asker(6, 9)]
    assert seen(parts) == [(1, b"www.lab.test", None, []), (2, b"www.lab.test", 3, ["A", "AAAA"])]


def test_before_goroutines_knew_their_parent_pointers_tell():
    """Go 1.20: the work holds the caller's own string, its questions the work's context."""
    other = Text(0xD000, b"www.lab.test")
    parts = [
        caller(1, other, None),
        caller(2, HOST, None),
        caller(3, HOST, None),
        flight(4, None, HOST, 8),
        flight(5, None, other, 9),
        asker(6, None, context=8),
        asker(7, None, context=9, kind="AAAA"),
    ]
    assert seen(parts) == [
        (1, b"www.lab.test", 5, ["AAAA"]),
        (2, b"www.lab.test", 4, ["A"]),
        (3, b"www.lab.test", None, []),
    ]


def test_a_context_of_two_proves_nothing():
    """Lookups that share context.Background() cannot be told apart by it: their questions are nobody's."""
    parts = [
        caller(number, HOST, None, calls=(LOOKUP_HOST,), context=7, worked_on=HOST) for number in (1, 2)
    ] + [asker(3, None)]
    assert [row[3] for row in seen(parts)] == [[], []]


@pytest.mark.parametrize(
    ("host", "asked", "is_sure"),
    [
        (b"www.lab.test", "www.lab.test.", True),
        (b"WWW.lab.test.", "www.lab.test.", True),
        (b"www", "www.lab.test.", True),
        (b"lab.test", "_ldap._tcp.lab.test.", True),
        (b"192.0.2.9", "9.2.0.192.in-addr.arpa.", True),
        (b"ww", "www.lab.test.", False),
        (b"lab", "www.lab2.test.", False),
    ],
)
def test_a_name_is_told_when_its_question_agrees(host, asked, is_sure):
    """What lies in an argument's place may be what was there before: the question must be about it."""
    part = caller(1, Text(1, host), calls=(LOOKUP_TXT,), question=question(asked))
    assert seen([part])[0][1] == (host if is_sure else None)


def test_without_a_question_only_the_waiting_function_is_believed():
    """The function that waits for another goroutine needs its name afterwards; others may have dropped it."""
    assert seen([caller(1)])[0][1] == b"www.lab.test"
    assert seen([caller(1, Text(1, b"a b"))])[0][1] is None
    assert seen([caller(1, calls=(LOOKUP_TXT,))])[0][1] is None
    assert seen([caller(1), flight(2, 1, Text(0xE000, b"other.lab.test"))])[0][1] is None


@pytest.mark.parametrize(
    ("function", "version", "places"),
    [  # read from the frames of programs that each toolchain built
        ("net.(*Resolver).exchange", (1, 21), {"ctx": 616, "server": 632}),
        ("net.(*Resolver).exchange", (1, 27), {"ctx": 368, "server": 384}),
        ("net.(*Resolver).lookupIPAddr", (1, 27), {"ctx": 8, "host": 40}),
        ("net.(*Resolver).goLookupIPCNAMEOrder", (1, 21), {"ctx": 264, "host": 296}),
        ("net.dnsPacketRoundTrip", (1, 21), {"connection": 608, "buffer": 632}),
        ("net.dnsPacketRoundTrip", (1, 27), {"connection": 360, "buffer": 384}),
    ],
)
def test_arguments_are_kept_where_they_were_seen(function, version, places):
    """The places follow from the signatures, by Go's own rules."""
    assert spill_places(function, version).items() >= places.items()


def test_what_is_told_is_plain():
    """The outermost call and the questions as values that are safe in JSON."""
    found = told(Found(goroutine(1), ("net.(*Resolver).lookupHost", LOOKUP_HOST), HOST, (question(),)))
    assert (found["call"], found["name"]) == ("(*Resolver).LookupHost", "www.lab.test")
    assert found["questions"][0]["server"] == ["192.0.2.53", 53]
    assert FLIGHT in MARKS
