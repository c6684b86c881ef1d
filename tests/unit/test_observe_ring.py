"""The ring buffer's reader, on memory laid out as the kernel lays it out."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.observe.ring import Ring

PAGE = mmap.PAGESIZE
SIZE = PAGE
BUSY, DISCARDED = 1 << 31, 1 << 30


class FakeKernel:
    """The producer's side: two pages of positions, then the data twice, as if mapped twice in a row."""

    def __init__(self, position=0):
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.produced = position
        self._put(0, struct.pack("=Q", position))
        self._put(PAGE, struct.pack("=Q", position))

    def _put(self, at, raw):
        os.pwrite(self.fd, raw, at)

    def reserve(self, payload, flags=0):
        """A record from its header on; where it begins."""
        at, raw = self.produced, struct.pack("=II", len(payload) | flags, 0) + payload
        for number, byte in enumerate(raw):
            place = (at + number) % SIZE
            for copy in (0, SIZE):
                self._put(2 * PAGE + copy + place, bytes((byte,)))
        self.produced += (len(raw) + 7) & ~7
        self._put(PAGE, struct.pack("=Q", self.produced))
        return at

    def commit(self, at, payload):
        """Take the busy bit off a reserved record."""
        for copy in (0, SIZE):
            self._put(2 * PAGE + copy + at % SIZE, struct.pack("=I", len(payload)))

    @property
    def consumed(self):
        return struct.unpack("=Q", os.pread(self.fd, 8, 0))[0]


@contextlib.contextmanager
def ring_of(kernel):
    ring = Ring(kernel.fd, SIZE)
    try:
        yield ring
    finally:
        ring.close()
        os.close(kernel.fd)


def test_records_come_in_order_and_make_room():
    """What was submitted is read once and in order, and the kernel is told that its room is free."""
    kernel = FakeKernel()
    with ring_of(kernel) as ring:
        for payload in (b"one", b"two..", b"", b"four" * 50):
            kernel.reserve(payload)
        assert ring.read(10) == [b"one", b"two..", b"", b"four" * 50]
        assert kernel.consumed == kernel.produced
        assert ring.read(10) == []


def test_no_more_than_asked_for():
    """A portion ends where it was asked to end, and the rest comes with the next one."""
    kernel = FakeKernel()
    with ring_of(kernel) as ring:
        for number in range(5):
            kernel.reserve(bytes((number,)))
        assert [ring.read(2), ring.read(2), ring.read(2)] == [[b"\0", b"\1"], [b"\2", b"\3"], [b"\4"]]


def test_a_record_that_is_being_written_holds_up_those_behind_it():
    """A busy record is not read, nor what is behind it, until it is committed."""
    kernel = FakeKernel()
    with ring_of(kernel) as ring:
        kernel.reserve(b"first")
        at = kernel.reserve(b"second", BUSY)
        kernel.reserve(b"third")
        assert ring.read(10) == [b"first"]
        assert ring.read(10) == []
        kernel.commit(at, b"second")
        assert ring.read(10) == [b"second", b"third"]


def test_discarded_records_are_passed_over():
    """A record that its program took back is no record, and its room is free all the same."""
    kernel = FakeKernel()
    with ring_of(kernel) as ring:
        kernel.reserve(b"taken back", DISCARDED)
        kernel.reserve(b"kept")
        kernel.reserve(b"taken back", DISCARDED)
        assert ring.read(10) == [b"kept"]
        assert kernel.consumed == kernel.produced


@pytest.mark.parametrize("position", [SIZE - 16, SIZE - 8, (1 << 40) + SIZE - 8])
def test_a_record_across_the_end_is_whole(position):
    """A record that begins at the end of the memory and goes on at its start is read in one piece."""
    kernel = FakeKernel(position)
    with ring_of(kernel) as ring:
        kernel.reserve(bytes(range(100)))
        kernel.reserve(b"next")
        assert ring.read(10) == [bytes(range(100)), b"next"]


def test_reading_begins_where_an_earlier_reader_ended():
    """A position that somebody has consumed is not read again."""
    kernel = FakeKernel(64)
    with ring_of(kernel) as ring:
        kernel.reserve(b"new")
        assert ring.read(10) == [b"new"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=300), st.sampled_from((0, DISCARDED)), st.integers(1, 4)), max_size=30
    )
)
def test_round_and_round(records):
    """However often the ring wraps around, each kept record is read once, whole and in order."""
    kernel = FakeKernel()
    with ring_of(kernel) as ring:
        found = []
        for payload, flags, most in records:
            kernel.reserve(payload, flags)
            while kernel.consumed < kernel.produced:
                found += ring.read(most)
        assert found == [payload for payload, flags, _ in records if not flags]
