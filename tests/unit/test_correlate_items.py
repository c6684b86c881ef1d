"""Items as lines of a recording: the same item comes back, and junk is refused."""

from __future__ import annotations

import json
from dataclasses import fields

import facts
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.correlate import items
from ebpfdns.model import boundary

NS = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
#: A dictionary of facts; `b64` is how bytes are marked, and no fact is called so.
FACTS = st.dictionaries(
    TEXT.filter(lambda key: key != "b64"), JSON.filter(lambda value: "b64" not in str(value))
)
CALLS = st.builds(
    items.OpenCall,
    key=NS,
    call=st.binary(),
    name=st.none() | st.binary(),
    thread_name=st.none() | st.binary(),
)
STALLS = st.builds(
    items.Stall,
    key=NS,
    wait=st.binary(),
    thread_name=st.none() | st.binary(),
    ready=st.lists(FACTS, max_size=3),
    state=st.none() | TEXT,
    syscall=st.none() | TEXT,
    throttled_ns=st.none() | NS,
    lookups=st.lists(st.binary(), max_size=3),
)
CHILDREN = st.builds(
    items.ChildLookup,
    key=NS,
    parent_pid=NS,
    parent_name=st.none() | TEXT,
    parent_syscall=st.none() | TEXT,
    pid=NS,
    tid=NS,
    found_ns=NS,
    seen_ns=NS,
    process=FACTS,
    thread=FACTS,
)
NAMES = st.tuples(st.sampled_from(("lookup", "connect")), NS, NS)
BYTES = st.lists(st.binary(max_size=30), max_size=3)
ROW = st.lists(NS, min_size=1 + boundary.HISTOGRAM_BUCKETS, max_size=1 + boundary.HISTOGRAM_BUCKETS)
VALUES = {
    "int": NS,
    "bool": st.booleans(),
    "str": TEXT,
    "str | None": st.none() | TEXT,
    "dict[str, Any]": FACTS,
    "dict[str, bytes]": st.dictionaries(TEXT.filter(lambda key: key != "b64"), st.binary()),
    "dict[str, dict[str, Any]]": st.dictionaries(TEXT.filter(lambda key: key != "b64"), FACTS, max_size=3),
    "dict[str, Addresses]": st.dictionaries(
        TEXT.filter(lambda key: key != "b64"),
        st.lists(st.tuples(TEXT, st.none() | NS, st.booleans()).map(list), max_size=3),
        max_size=3,
    ),
    "list[bytes]": BYTES,
    "list[str]": st.lists(TEXT, max_size=3),
    "list[Stall]": st.lists(STALLS, max_size=3),
    "list[ChildLookup]": st.lists(CHILDREN, max_size=3),
    "list[OpenCall]": st.lists(CALLS, max_size=3),
    "list[Name] | None": st.none() | st.lists(NAMES, max_size=3),
    "Losses": st.dictionaries(TEXT.filter(lambda key: key != "b64"), NS, max_size=3),
    "Counts": st.dictionaries(TEXT.filter(lambda key: key != "b64"), NS, max_size=3),
    "Counters": st.lists(NS, min_size=len(boundary.Counter), max_size=len(boundary.Counter)),
    "Histograms": st.lists(ROW, min_size=boundary.LATENCIES, max_size=boundary.LATENCIES),
}


@st.composite
def any_item(draw):
    """An item of any kind, with any values."""
    kind = draw(st.sampled_from(sorted(items.ITEMS.values(), key=lambda kind: kind.__name__)))
    return kind(**{entry.name: draw(VALUES[entry.type]) for entry in fields(kind)})


@given(any_item())
def test_an_item_comes_back(item):
    """Every item survives being written as JSON and read again, to the last byte and the last type."""
    text = json.dumps(items.to_json(item))
    back = items.from_json(json.loads(text))
    assert back == item
    assert repr(back) == repr(item)


@given(JSON | st.dictionaries(st.sampled_from(("item", "now_ns", "wall_ns", "frames", "pid")), JSON))
def test_junk_is_refused(values):
    """Values that are no item give a ValueError, whatever they are."""
    with pytest.raises(ValueError, match=r".+"):
        items.from_json(values)


@given(any_item(), st.data())
def test_a_damaged_item_is_refused_or_whole(item, data):
    """An item with one value replaced, left out or added is either refused or of the right types."""
    values = items.to_json(item)
    name = data.draw(st.sampled_from([*sorted(values), "more"]))
    if name in values and data.draw(st.booleans()):
        del values[name]
    else:
        values[name] = data.draw(JSON)
    try:
        found = items.from_json(values)
    except ValueError:
        return
    for entry in fields(found):
        assert items.CHECKS[entry.type](getattr(found, entry.name)), entry.name


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        pytest.param(facts.frames(1, b"x"), {"frames": [{"b64": "no base64!"}]}, id="bytes"),
        pytest.param(facts.frames(1), {"frames": ["text"]}, id="text instead of bytes"),
        pytest.param(facts.frames(1), {"now_ns": True}, id="a truth instead of a number"),
        pytest.param(facts.frames(1), {"item": ["frames"]}, id="a list for a kind"),
        pytest.param(facts.scan(1), {"calls": [{"key": 1}]}, id="half a call"),
        pytest.param(facts.scan(1), {"calls": None}, id="no calls"),
        pytest.param(facts.scan(1), {"vanished": [["lookup", 1]]}, id="half a name"),
        pytest.param(facts.scan(1), {"vanished": [["other", 1, 2]]}, id="another kind of thing"),
        pytest.param(facts.stats(1), {"counters": [1, 2]}, id="counters of another version"),
        pytest.param(facts.stats(1), {"histograms": [[1]]}, id="histograms of another version"),
    ],
)
def test_wrong_types_are_refused(kind, change):
    """Each field holds what its annotation says, or the line is damaged."""
    assert items.from_json(items.to_json(kind)) == kind
    with pytest.raises(ValueError, match=r".+"):
        items.from_json(items.to_json(kind) | change)
