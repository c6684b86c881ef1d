"""The queue of lines that wait: order, limit, and never half a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.publish.backlog import LINE_OVERHEAD_BYTES, Backlog

LINES = st.binary(min_size=0, max_size=40).map(lambda body: body.replace(b"\n", b" ") + b"\n")


@given(st.lists(LINES, max_size=40), st.integers(1, 50), st.data())
def test_what_goes_in_comes_out(given_lines: list[bytes], limit_bytes: int, data: st.DataObject) -> None:
    """However the writes are cut, the bytes written are the lines, in order, once."""
    backlog = Backlog(1 << 20)
    backlog.add(given_lines)
    written, finished = b"", 0
    while chunk := backlog.chunk(limit_bytes):
        assert len(chunk) <= limit_bytes
        took = data.draw(st.integers(1, len(chunk)))
        written += chunk[:took]
        finished += backlog.advance(took)
        assert finished == written.count(b"\n")
    assert written == b"".join(given_lines)
    assert len(backlog) == 0


@given(st.lists(LINES, min_size=1, max_size=20), st.integers(2, 100))
def test_a_chunk_holds_whole_lines(given_lines: list[bytes], limit_bytes: int) -> None:
    """A chunk ends with a line's end, unless the line alone is longer than a chunk may be."""
    backlog = Backlog(1 << 20)
    backlog.add(given_lines)
    chunk = backlog.chunk(limit_bytes)
    assert chunk.endswith(b"\n") or len(given_lines[0]) > limit_bytes


@given(st.lists(LINES, max_size=60), st.integers(0, 2000))
def test_kept_and_dropped_are_all(given_lines: list[bytes], limit_bytes: int) -> None:
    """Every line is either kept or counted, and what is kept stays under the limit."""
    backlog = Backlog(limit_bytes)
    backlog.add(given_lines)
    kept = given_lines[: len(backlog)]
    assert sum(len(line) + LINE_OVERHEAD_BYTES for line in kept) <= limit_bytes
    backlog.advance(sum(map(len, kept)))
    assert backlog.take_dropped() == len(given_lines) - len(kept)
    assert backlog.take_dropped() == 0


def test_drops_are_told_when_there_is_room_to_tell() -> None:
    """While full the count is kept back: a line about the loss would be lost as well."""
    line = b"x" * 51 + b"\n"
    backlog = Backlog(4 * (len(line) + LINE_OVERHEAD_BYTES))
    backlog.add([line] * 5)
    assert (backlog.take_dropped(), backlog.refusing) == (0, True)
    backlog.advance(len(line))
    backlog.add([line])
    assert len(backlog) == 3, "one gap, not many: the queue takes nothing until half of it is free"
    backlog.advance(len(line))
    assert (backlog.take_dropped(), backlog.refusing) == (2, False)


def test_a_line_begun_anew_is_whole() -> None:
    """After its fragment was taken back, the first line is written from its start."""
    backlog = Backlog(1000)
    backlog.add([b"first\n", b"second\n"])
    backlog.advance(3)
    assert backlog.fragment_bytes == 3
    backlog.restart_line()
    assert backlog.chunk(100) == b"first\nsecond\n"


def test_a_chunk_can_stop_before_a_rotation() -> None:
    """No more lines than asked for, so that the rest can go to another file."""
    backlog = Backlog(1000)
    backlog.add([b"1\n", b"2\n", b"3\n"])
    assert [backlog.chunk(100, limit) for limit in (0, 1, 2)] == [b"", b"1\n", b"1\n2\n"]
