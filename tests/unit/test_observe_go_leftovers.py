"""Lookups of goroutines that nothing in the kernel ends: whose program, or goroutine, is gone."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

import pytest

from ebpfdns.model import boundary, decode
from ebpfdns.model.boundary import Api, Counter, Role
from ebpfdns.observe import go_leftovers

PID, ID, GOID_OFFSET = os.getpid(), 7, 152
KEY = boundary.go_key(PID, ID)
SECOND_NS = 1_000_000_000
WAITING, DEAD = 4, 6


class Maps:
    """What `KernelMaps` has of goroutines."""

    def __init__(self, calls: dict[int, bytes], lookups: dict[int, bytes] | None = None) -> None:
        self.calls, self.lookups = calls, lookups or {}
        self.ended: list[tuple[Counter, int]] = []

    def goroutines_of(self, pid: int) -> list[tuple[int, bytes]]:
        return [(key, raw) for key, raw in self.calls.items() if boundary.CALL.unpack(raw).pid == pid]

    def forget_goroutine(self, key: int) -> bool:
        return self.calls.pop(key, None) is not None

    def call_of(self, key: int) -> bytes | None:
        return self.calls.get(key)

    def lookup_of(self, key: int) -> bytes | None:
        return self.lookups.get(key)

    def drop_lookup(self, key: int) -> bool:
        return self.lookups.pop(key, None) is not None

    def forget_question(self, socket: int, number: int) -> None:
        pass

    def count_end(self, counter: Counter, took_ns: int | None = None, unanswered: int = 0) -> None:
        assert took_ns is None
        self.ended.append((counter, unanswered))


def call(start_ns: int = 5, **fields: Any) -> bytes:
    return boundary.CALL.pack(**{"start_ns": start_ns, "pid": PID, "api": Api.GO, "hints": ID} | fields)


def goroutine(goroutine_id: int, status: int) -> ctypes.Array[ctypes.c_char]:
    """A struct g in this process's memory."""
    raw = bytes(GOID_OFFSET - 8) + struct.pack("=IIQ", status, 0, goroutine_id)
    return ctypes.create_string_buffer(raw, len(raw))


def test_a_lookup_without_a_record_ends_with_its_program():
    """Whose it was is known from its key; its name was in the memory that is gone."""
    maps = Maps({KEY: call(), KEY + 1: call(start_ns=20), KEY + 2: call(start_ns=0, role=Role.ATTEMPT)})
    [frame] = go_leftovers.end_lookups_of(maps, PID, 10)  # type: ignore[arg-type]
    found = decode.lookup(frame)
    assert (found.key, found.status, found.end_ns, found.name) == (KEY, "abandoned", 10, None)
    assert (found.goroutine_id, found.host_pid, found.api) == (ID, PID, "go")
    assert list(maps.calls) == [KEY + 1]  # of the next program
    assert maps.ended == [(Counter.LOOKUPS_ABANDONED, 0)]


def test_who_works_for_the_next_program_goes_on():
    """An exec is heard of late: what the new program's goroutines ask by then is still their lookup's."""
    working = {KEY + 10 + n: call(0, role=Role.FLIGHT, result=KEY + n) for n in range(3)}
    maps = Maps({KEY: call(), KEY + 1: call(start_ns=20)} | working)  # the third one's lookup is over
    assert len(go_leftovers.end_lookups_of(maps, PID, 10)) == 1  # type: ignore[arg-type]
    assert list(maps.calls) == [KEY + 1, KEY + 11]


def test_a_record_ends_as_it_is_with_its_questions_unanswered():
    """A place that is free counts as no question."""
    query = boundary.QUERY.pack(sent_ns=6, family=2, transport=17)
    raw = boundary.LOOKUP.pack(kind=1, key=KEY, start_ns=5, pid=PID, api=Api.GO, name=b"a", name_bytes=1)
    count = raw.index(b"a") and {name: at for name, at, _ in boundary.LOOKUP.offsets()}["query_count"]
    record = bytearray(raw + bytes(boundary.QUERY.size) + query + bytes(6 * boundary.QUERY.size))
    record[count] = boundary.MAX_QUERIES
    maps = Maps({KEY: call(has_record=1)}, {KEY: bytes(record)})
    [frame] = go_leftovers.end_lookups_of(maps, PID, 10)  # type: ignore[arg-type]
    found = decode.lookup(frame)
    assert (found.name, found.status, len(found.queries)) == (b"a", "abandoned", 1)
    assert maps.ended == [(Counter.LOOKUPS_ABANDONED, 1)]


@pytest.mark.parametrize(
    ("goroutine_id", "status", "is_gone"),
    [(ID, WAITING, False), (ID, WAITING | 0x1000, False), (ID, DEAD, True), (ID + 1, WAITING, True)],
)
def test_a_goroutine_that_has_ended_inside_leaves_an_abandoned_lookup(goroutine_id, status, is_gone):
    """Its struct says so: it is free, or another goroutine's."""
    made = goroutine(goroutine_id, status)
    maps = Maps({KEY: call(stack=ctypes.addressof(made))})
    frames = go_leftovers.end_lookups_of_gone(maps, PID, PID, GOID_OFFSET, 2 * SECOND_NS)  # type: ignore[arg-type]
    assert [decode.lookup(frame).status for frame in frames] == ["abandoned"] * is_gone
    assert (KEY in maps.calls) != is_gone


def test_young_lookups_and_memory_that_cannot_be_read_are_left_alone():
    """Nothing is ended for want of knowledge."""
    made = goroutine(ID, DEAD)
    maps = Maps({KEY: call(SECOND_NS + 1, stack=ctypes.addressof(made)), KEY + 1: call(stack=8)})
    assert go_leftovers.end_lookups_of_gone(maps, PID, PID, GOID_OFFSET, 2 * SECOND_NS) == []  # type: ignore[arg-type]
    assert len(maps.calls) == len((KEY, KEY + 1))


def test_who_works_for_a_lookup_that_is_over_is_forgotten():
    """Only then."""
    working = {KEY + n: call(0, role=Role.FLIGHT, result=KEY + 10 * n) for n in (1, 2)}
    maps = Maps(working | {KEY + 10: call(SECOND_NS)})
    assert go_leftovers.end_lookups_of_gone(maps, PID, PID, GOID_OFFSET, SECOND_NS) == []  # type: ignore[arg-type]
    assert list(maps.calls) == [KEY + 1, KEY + 10]
