"""How an event becomes a line: key order, safe text, times and durations."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.publish import lines

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SURROGATES = st.characters(categories=["Cs"])


def unescaped(text: str) -> bytes:
    """The bytes that `printable` was given."""
    parts = re.split(r"(\\\\|\\x[0-9a-f]{2})", text)
    return b"".join(
        b"\\" if part == "\\\\" else bytes.fromhex(part[2:]) if part.startswith("\\x") else part.encode()
        for part in parts
    )


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "ignore")))
def test_printable_can_be_undone(raw: bytes) -> None:
    """The bytes can be had back from the text, so two names never look the same."""
    assert unescaped(lines.printable(raw)) == raw


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "ignore")))
def test_printable_is_printable(raw: bytes) -> None:
    """No control character, direction override, line separator or stray byte comes through."""
    shown = lines.printable(raw)
    assert shown.isprintable()
    assert not lines.INVISIBLE & set(shown)


def test_printable_by_example() -> None:
    """What people type stays as it is; what could mislead a terminal or an eye becomes its bytes."""
    cases = {
        b"proxy.golang.org": "proxy.golang.org",
        "bücher.example".encode(): "bücher.example",
        b"a\\b": "a\\\\b",
        b"\x1b[2Jx": "\\x1b[2Jx",
        b"\xff\xfe": "\\xff\\xfe",
        "a\u202eb".encode(): "a\\xe2\\x80\\xaeb",
        "a\u2028b".encode(): "a\\xe2\\x80\\xa8b",
        b"\xed\xa0\x80": "\\xed\\xa0\\x80",
        b"": "",
    }
    assert {raw: lines.printable(raw) for raw in cases} == cases
    assert lines.printable_text("bad\udcff") == "bad\\xff"


@given(st.integers(0, 4_102_444_800 * 10**9))
def test_rfc3339_is_what_datetime_writes(wall_ns: int) -> None:
    """Six digits of a second, cut and not rounded, in UTC."""
    at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=wall_ns // 1000)
    assert lines.rfc3339(wall_ns) == at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert lines.wall_ns(lines.rfc3339(wall_ns)) == wall_ns // 1000 * 1000


@pytest.mark.parametrize("text", ["", "yesterday", "2026-03-02", "2026-03-02T09:14:07"])
def test_a_text_without_a_time_has_none(text: str) -> None:
    """What names no moment is no moment."""
    assert lines.wall_ns(text) is None


@given(st.integers(-(10**18), 10**18))
def test_milliseconds_have_three_digits(duration_ns: int) -> None:
    """A duration is off by half a microsecond at most (and by what a double cannot hold)."""
    milliseconds = lines.milliseconds(duration_ns)
    assert abs(milliseconds * 1e6 - duration_ns) <= 501 + abs(duration_ns) * 1e-15
    assert round(milliseconds, 3) == milliseconds


@given(st.permutations(lines.KEY_ORDER), st.data())
def test_keys_come_in_the_contracts_order(keys: list[str], data: st.DataObject) -> None:
    """Whatever order the event was made in, its line has the keys in one order, and all of them."""
    event = {key: data.draw(JSON_VALUES) for key in keys[:6]} | {"novel": 1}
    written = lines.line(event)
    assert list(json.loads(written)) == [*(key for key in lines.KEY_ORDER if key in event), "novel"]


@given(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=4))
def test_a_line_is_one_line(event: dict[str, object]) -> None:
    """Any event is one JSON object with exactly one newline, at its end, and reads back as it was."""
    written = lines.line(event)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    assert json.loads(written) == json.loads(json.dumps(event))


@given(st.text(max_size=5), SURROGATES)
def test_half_a_surrogate_pair_is_escaped(text: str, surrogate: str) -> None:
    """Text that UTF-8 cannot carry, such as an undecodable path, still gives a line."""
    written = lines.line({"process": {"executable": {"path": text + surrogate}}, "chain": [surrogate]})
    assert lines.printable(surrogate.encode("utf-8", "surrogatepass")) in json.loads(written)["chain"]
