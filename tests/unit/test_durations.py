"""Times on the command line: 250ms, 1s, 2m, and nothing else."""

from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.commands.durations import UNITS_NS, Duration

MS = 1_000_000


def parsed(text):
    return Duration().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("1s", 1000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("0.3s", 300),
        ("1.5ms", 1.5),
        (" 1s ", 1000),
    ],
)
def test_times_have_units(text, milliseconds):
    """A number with a unit is that time, exactly."""
    assert parsed(text) == milliseconds * MS


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS_NS)))
def test_every_time_is_understood(number, unit):
    """Any whole number of any unit is understood to the nanosecond."""
    assert parsed(f"{number}{unit}") == number * UNITS_NS[unit]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "0s",
        "0.0ms",
        "-1s",
        "1 s",
        "1S",
        "1d",
        "1s2s",
        "1e3s",
        "inf",
        "nan",
        ".5s",
        "٣s",
        "1_0s",
    ],
)
def test_anything_else_is_refused(text):
    """What is not plainly a positive time is a mistake on the command line, and says how to write one."""
    with pytest.raises(click.BadParameter, match="write 250ms"):
        parsed(text)


@pytest.mark.parametrize("text", ["10001h", "9" * 400 + "s", "0." + "0" * 400 + "1s"])
def test_times_beyond_reason_are_refused(text):
    """A time that no counter of nanoseconds holds, or no clock can tell, is refused and not a crash."""
    with pytest.raises(click.BadParameter):
        parsed(text)


@given(st.text(max_size=12))
def test_no_text_breaks_the_parser(text):
    """Whatever is typed, the answer is a positive time or a usage error."""
    try:
        assert parsed(text) > 0
    except click.BadParameter:
        return


def test_a_default_in_nanoseconds_stays():
    """A value that is a number already is nanoseconds."""
    assert parsed(5) == 5
