"""The schema is the contract: it takes what the contract shows, and refuses what it does not promise."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ebpfdns.publish import lines
from ebpfdns.publish.examples import examples
from ebpfdns.publish.schema import KINDS, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
# Section 6 of the contract, unchanged but for its line breaks.
CONTRACT_LINE = (Path(__file__).parent / "lookup_stuck.jsonl").read_text()

Way = tuple[str | int, ...]


def objects(value: Any, path: Way = ()) -> Iterator[Way]:
    """Where in an event there are objects."""
    if isinstance(value, dict):
        yield path
        for key, item in value.items():
            yield from objects(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from objects(item, (*path, index))


def at(event: Any, path: Way) -> Any:
    for step in path:
        event = event[step]
    return event


def changed(kind: str, path: str, value: object) -> dict[str, Any]:
    """The example of this kind with one field set."""
    event = copy.deepcopy(examples()[kind])
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    at(event, tuple(way))[last] = value
    return event


def without(kind: str, path: str) -> dict[str, Any]:
    event = copy.deepcopy(examples()[kind])
    *way, last = path.split(".")
    del at(event, tuple(way))[last]
    return event


def fields(shape: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every named field anywhere in the schema, outside of conditions."""
    if isinstance(shape, list):
        for item in shape:
            yield from fields(item)
    if not isinstance(shape, dict):
        return
    for key, item in shape.items():
        if key in {"properties", "$defs", "patternProperties"}:
            yield from item.items()
            yield from fields(list(item.values()))
        elif key not in {"allOf", "if", "then", "else"}:
            yield from fields(item)


def test_the_schema_is_valid() -> None:
    """It is a schema of draft 2020-12."""
    Draft202012Validator.check_schema(SCHEMA)


def test_the_contracts_line_is_valid() -> None:
    """The line in the contract's last section is taken as it is, and is written back byte for byte."""
    event = json.loads(CONTRACT_LINE)
    assert [error.message for error in VALIDATOR.iter_errors(event)] == []
    assert json.loads(lines.line(event)) == event
    assert lines.line(event).decode() == CONTRACT_LINE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_valid_example(kind: str) -> None:
    """What the documentation shows is what the schema takes, and is of the kind it claims."""
    assert examples()[kind]["event"] == kind
    assert [error.message for error in VALIDATOR.iter_errors(examples()[kind])] == []


@given(st.sampled_from(list(KINDS)), st.data())
def test_no_unknown_field_anywhere(kind: str, data: st.DataObject) -> None:
    """A field that the contract does not name is refused in every object."""
    event = copy.deepcopy(examples()[kind])
    path = data.draw(st.sampled_from(list(objects(event))))
    at(event, path)["no such field"] = 1
    assert not VALIDATOR.is_valid(event), path


@given(st.sampled_from(list(KINDS)), st.data())
def test_no_field_takes_just_any_type(kind: str, data: st.DataObject) -> None:
    """Whatever field it is, a list of an object is not what it holds."""
    event = copy.deepcopy(examples()[kind])
    path = data.draw(st.sampled_from([path for path in objects(event) if at(event, path)]))
    name = data.draw(st.sampled_from(list(at(event, path))))
    at(event, path)[name] = [{"": []}]
    assert not VALIDATOR.is_valid(event), (*path, name)


REQUIRED = [
    ("target", "v ts event message host process target target.status target.coverage.missing"),
    (
        "lookup_stuck",
        "lookup cause chain lookup.id lookup.name lookup.started lookup.elapsed_ms lookup.update",
    ),
    ("lookup_stuck", "lookup.queries lookup.waiting_on cause.evidence cause.remedy process.start_time"),
    ("lookup", "lookup chain lookup.duration_ms lookup.status lookup.error lookup.since"),
    ("connect_stuck", "connect cause connect.elapsed_ms connect.update connect.lookup connect.tcp"),
    ("connect", "connect connect.duration_ms connect.error connect.purpose"),
    ("event_loop_stall", "thread event_loop event_loop.ready event_loop.doing event_loop.last_return"),
    ("stats", "stats stats.since stats.lookups.stuck stats.latency_ms.event_loop_wait stats.agent.bpf.runs"),
    ("lost", "lost lost.where lost.count lost.since lost.remedy"),
]


@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind, paths in REQUIRED for path in paths.split()]
)
def test_what_is_promised_must_be_there(kind: str, path: str) -> None:
    """A line without a field that the contract always has is refused."""
    assert not VALIDATOR.is_valid(without(kind, path))


REFUSED: list[tuple[str, str, object]] = [
    ("lost", "v", 2),
    ("lost", "event", "loss"),
    ("lost", "ts", "2026-03-02T09:14:07Z"),
    ("lost", "ts", "2026-03-02T09:14:07.512345+01:00"),
    ("lost", "message", ""),
    ("lost", "process", {"pid": 1, "executable": {"name": None, "path": None}, "start_time": None}),
    ("lost", "lost.count", 0),
    ("target", "lookup", {}),
    ("target", "target.status", "gone"),
    ("lookup_stuck", "lookup.status", "ok"),
    ("lookup_stuck", "lookup.duration_ms", 1),
    ("lookup_stuck", "lookup.update", 0),
    ("lookup_stuck", "lookup.elapsed_ms", "4 s"),
    ("lookup_stuck", "lookup.since", "ever"),
    ("lookup_stuck", "lookup.queries.0.id", 65536),
    ("lookup_stuck", "lookup.queries.0.state", "lost"),
    ("lookup_stuck", "lookup.queries.0.server.port", -1),
    ("lookup_stuck", "lookup.name_cut", False),
    ("lookup_stuck", "cause.id", "bad_luck"),
    ("lookup_stuck", "cause.confidence", "certain"),
    ("lookup_stuck", "cause.evidence", []),
    ("lookup_stuck", "cause.evidence.0.seen", {"at": 1}),
    ("lookup_stuck", "chain", None),
    ("lookup_stuck", "chain.0.role", "friend"),
    ("lookup", "lookup.status", "in_flight"),
    ("lookup", "lookup.status", "ok"),
    ("lookup", "lookup.status", None),
    ("lookup", "lookup.elapsed_ms", 1),
    ("lookup", "lookup.update", 1),
    ("lookup", "lookup.waiting_on", None),
    ("lookup", "lookup.addresses", ["192.0.2.1"]),
    ("lookup", "lookup.lost_end", True),
    ("connect", "connect.path", "/run/x"),
    ("connect", "connect.network.transport", "unix"),
    ("connect", "connect.purpose", "fun"),
    ("connect", "cause", {}),
    ("event_loop_stall", "event_loop.kind", "kqueue"),
    ("stats", "stats.latency_ms.lookup.buckets.0", [1.5]),
    ("stats", "stats.latency_ms.event_loop_wait.kqueue", None),
    ("stats", "stats.lost.ring", -1),
    ("stats", "stats.lookups.ok", 1.5),
]


@pytest.mark.parametrize(("kind", "path", "value"), REFUSED)
def test_what_the_contract_does_not_know_is_refused(kind: str, path: str, value: object) -> None:
    """A value outside of the contract, or a field on the wrong kind of line, is refused."""
    assert not VALIDATOR.is_valid(changed(kind, path, value))


TAKEN: list[tuple[str, str, object]] = [
    ("lookup_stuck", "lookup.name", None),
    ("lookup_stuck", "lookup.name_cut", True),
    ("lookup_stuck", "lookup.service", "https"),
    ("lookup_stuck", "lookup.family", "inet6"),
    ("lookup_stuck", "lookup.family", None),
    ("lookup_stuck", "lookup.more_queries", 3),
    ("lookup_stuck", "lookup.waiting_on", None),
    ("lookup_stuck", "lookup.waiting_on.socket", None),
    ("lookup_stuck", "lookup.queries.0.resent_ms", 5001.2),
    ("lookup_stuck", "lookup.queries.0.error", "ENETUNREACH"),
    ("lookup_stuck", "lookup.queries.0.server", None),
    ("lookup_stuck", "lookup.api", None),
    ("lookup_stuck", "chain", []),
    ("lookup_stuck", "chain.0.process", None),
    ("lookup_stuck", "container", {"id": "4f2a"}),
    ("lookup_stuck", "k8s", {"pod": {"uid": "0b2c"}}),
    ("lookup_stuck", "process.vpid", 7),
    ("connect_stuck", "connect.tcp", None),
    ("connect_stuck", "connect.lookup", None),
    ("stats", "stats.latency_ms.lookup", None),
    ("stats", "stats.lookups.ok", None),
]


@pytest.mark.parametrize(("kind", "path", "value"), TAKEN)
def test_what_may_be_unknown_may_be_null(kind: str, path: str, value: object) -> None:
    """What the contract lets be null, or be absent, is taken either way."""
    assert [error.message for error in VALIDATOR.iter_errors(changed(kind, path, value))] == []


def test_a_lost_end_is_told() -> None:
    """A lookup whose end was lost has neither status nor duration, and says so."""
    event = examples()["lookup"]
    ended = {key: value for key, value in event["lookup"].items() if key != "error"}
    event["lookup"] = ended | {"status": None, "duration_ms": None, "lost_end": True}
    assert VALIDATOR.is_valid(event)
    event["lookup"] = ended | {"status": "abandoned", "duration_ms": None}
    assert not VALIDATOR.is_valid(event)


def test_what_began_before_tracing_has_a_least_age_only() -> None:
    """Its start is not known, so neither is its age; how it ended may not be either."""
    event = examples()["lookup_stuck"]
    found = event["lookup"] | {"since": "before_attach", "open_for_at_least_ms": 207.1}
    event["lookup"] = found
    assert not VALIDATOR.is_valid(event)
    event["lookup"] = found | {"started": None, "elapsed_ms": None}
    assert VALIDATOR.is_valid(event)
    ended = examples()["lookup"]
    told = {key: value for key, value in ended["lookup"].items() if key != "error"}
    told |= {"since": "before_attach", "open_for_at_least_ms": 207.1, "started": None, "status": None}
    ended["lookup"] = told | {"duration_ms": None}
    assert VALIDATOR.is_valid(ended)
    ended["lookup"] = told | {"duration_ms": 4.0}
    assert not VALIDATOR.is_valid(ended)


def test_a_local_socket_has_a_path_and_no_server() -> None:
    """A connect to a name service daemon names the socket's path."""
    event = examples()["connect_stuck"]
    event["connect"] |= {
        "server": None,
        "network": {"transport": "unix", "type": "unix"},
        "path": "/run/nscd/socket",
        "tcp": None,
    }
    assert [error.message for error in VALIDATOR.iter_errors(event)] == []


def test_every_field_says_what_it_means() -> None:
    """Each field and each shape has a description."""
    silent = [name for name, field in fields(SCHEMA) if not field.get("description")]
    assert silent == []


def test_every_word_says_what_it_means() -> None:
    """Each value of an enum stands in its field's description (the causes have a catalogue of their own)."""
    untold = [
        (name, word)
        for name, field in fields(SCHEMA)
        for word in field.get("enum", ())
        if word is not None
        and f"`{word}`" not in field["description"]
        and "catalogue" not in field["description"]
    ]
    assert untold == []
