"""What a screen has to show: open blocks that share its room, what is appended, what is counted instead."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ebpfdns.publish import board, styled
from ebpfdns.publish.board import MOST_BLOCKS, MOST_WAITING, Board, region
from ebpfdns.publish.examples import examples
from ebpfdns.publish.styled import Style

S = 1_000_000_000
STYLE = Style(columns=100, coloured=False)


def stuck(number, cause="ns_silent", elapsed_ms=1000.0):
    """A lookup that is stuck, with a cause of its own."""
    event = examples()["lookup_stuck"]
    event["lookup"] |= {"id": f"4242-{number}", "name": f"h{number}.lab.test", "elapsed_ms": elapsed_ms}
    event["cause"]["id"] = cause
    return event


def ended(number, *, cause=True):
    """The end of it."""
    event = examples()["lookup"]
    event["lookup"] |= {"id": f"4242-{number}", "name": f"h{number}.lab.test"}
    return event if cause else {key: value for key, value in event.items() if key != "cause"}


def picture(found, rows=50, now_ns=0, style=STYLE):
    return region(list(found.open.values()), style, rows, now_ns)


def test_a_second_word_replaces_the_first():
    """Two lines about one lookup are one block, with the newest cause."""
    found = Board()
    found.take([stuck(1, "unknown"), stuck(1, "ns_silent", 2000.0)], 0)
    lines = picture(found)
    assert len([line for line in lines if line.startswith("●")]) == 1
    assert "  cause   ns_silent (confirmed)" in lines
    assert len(found) == 0


def test_a_block_ages_between_two_words():
    """The age in a headline goes on by the clock, from what was told last."""
    found = Board()
    found.take([stuck(1)], 7 * S)
    assert ", 3.0 s" in picture(found, now_ns=9 * S)[0]


def test_an_age_that_is_not_known_is_not_made_up():
    """A lookup that was under way before tracing began shows no age."""
    found = Board()
    found.take([stuck(1, elapsed_ms=None)], 7 * S)
    assert "age not known" in picture(found, now_ns=9 * S)[0]


def test_the_end_of_a_block_stays():
    """A block that has ended leaves the picture and is appended in full, once."""
    found = Board()
    found.take([stuck(1)], 0)
    picture(found)
    found.take([ended(1)], 0)
    assert picture(found) == []
    [entry] = found.next_lines(99)
    assert entry.in_full
    assert "  cause   resolved_dot_blocked (confirmed)" in styled.appended(entry.event, STYLE)


def test_an_end_without_a_cause_keeps_the_last_word():
    """What kept a lookup waiting is still there when it ended well."""
    found = Board()
    found.take([stuck(1, "ns_slow"), ended(1, cause=False)], 0)
    [entry] = found.next_lines(99)
    assert entry.event["cause"]["id"] == "ns_slow"


def test_healthy_ends_are_a_line_each():
    """With --all, a lookup that was never stuck and has no cause is one line."""
    found = Board()
    found.take([ended(1, cause=False)], 0)
    [entry] = found.next_lines(99)
    assert len(styled.appended(entry.event, Style(200, coloured=False), in_full=entry.in_full)) == 1


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), rows=st.integers(0, 60), columns=st.integers(1, 150))
def test_a_picture_fits_its_window(count, rows, columns):
    """However many things are stuck, the picture has no more rows and columns than the window."""
    found = Board()
    found.take([stuck(number) for number in range(count)], 0)
    style = Style(columns=columns, coloured=False)
    lines = picture(found, rows, style=style)
    assert len(lines) <= rows
    assert all(cell_len(line) < columns for line in lines)


def test_a_thousand_stuck_are_a_dozen_blocks():
    """1,000 stuck at once: the first dozen as blocks, the rest by their causes, and nothing appended."""
    found = Board()
    found.take([stuck(number, "ns_silent" if number % 10 else "unknown") for number in range(1000)], 0)
    lines = picture(found, rows=500)
    assert len([line for line in lines if line.startswith("●")]) == MOST_BLOCKS
    assert lines[-1] == "and 988 more stuck: 890 ns_silent, 98 unknown"
    assert len(found) == 0


def test_a_thousand_ends_are_a_line_each():
    """When they all end at once, each is told of; those that nobody saw as a block with a line."""
    found = Board()
    found.take([stuck(number) for number in range(1000)], 0)
    picture(found)
    found.take([ended(number) for number in range(1000)], 0)
    entries = found.next_lines(MOST_WAITING)
    assert len({entry.event["lookup"]["id"] for entry in entries}) == 1000
    assert sum(entry.in_full for entry in entries) == 2 * MOST_BLOCKS
    [line] = styled.appended(entries[500].event, Style(200, coloured=False), in_full=False)
    assert line.endswith("(resolved_dot_blocked)")


def test_a_block_that_is_too_long_says_so():
    """In a low window the block is cut, and says that there is more."""
    found = Board()
    found.take([stuck(1)], 0)
    lines = picture(found, rows=8)
    assert len(lines) <= 8
    assert "too small" in lines[-1]


def test_what_is_open_at_the_end_stays():
    """When tracing ends, everything open is appended as it stands, and the sum of it all comes last."""
    found = Board()
    found.take([stuck(1), examples()["stats"], examples()["stats"]], 0)
    picture(found)
    found.close()
    assert [entry.event["event"] for entry in found.next_lines(99)] == ["lookup_stuck", "stats"]
    assert picture(found) == []


def test_what_finds_no_room_is_counted():
    """Beyond its limit the board counts; the count is given once there is room for a word about it."""
    found = Board()
    found.take([ended(number) for number in range(MOST_WAITING + 17)], 0)
    assert (found.refusing, len(found), found.take_dropped()) == (True, MOST_WAITING, 0)
    found.next_lines(MOST_WAITING // 2)
    assert (found.refusing, found.take_dropped(), found.take_dropped()) == (False, 17, 0)


def test_stuck_things_need_no_room():
    """A full board still knows the newest state of what is stuck."""
    found = Board()
    found.take([ended(number) for number in range(MOST_WAITING + 1)], 0)
    found.take([stuck(1)], 0)
    assert board.Open(stuck(1), found.open["lookup 4242-1"].block, 0) == found.open["lookup 4242-1"]
    assert found.take_dropped() == 0
