"""What every stream of event lines keeps, whatever was traced: checked after each run of the agent.

Owns: the schema check, and the rules that tie lines to each other. Must not know: how the agent was started.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from ebpfdns.publish.schema import schema

if TYPE_CHECKING:
    Line = dict[str, Any]

ENDED = {"lookup_stuck": "lookup", "connect_stuck": "connect"}


def check(lines: list[Line], *, was_stopped: bool) -> None:
    """Everything below. `was_stopped`: what was stuck may have had no time to end."""
    for line in lines:
        check_shape(line)
    assert lines, "not a single line"
    assert lines[-1]["event"] == "stats", lines[-1]
    for stuck, ended in ENDED.items():
        check_updates(lines, stuck)
        check_ends(lines, stuck, ended, was_stopped=was_stopped)
    check_stalls(lines)
    check_counts(lines)


def check_shape(line: Line) -> None:
    """A line has the fields of its kind, and no others."""
    errors = [
        f"{error.json_path}: {error.message}" for error in _validator(line.get("event")).iter_errors(line)
    ]
    assert errors == [], (errors, line)


@cache
def _validator(event: str | None) -> Draft202012Validator:
    """Of one kind: trying all of them for each line takes ten times as long."""
    found = schema()
    assert event in found["$defs"], event
    return Draft202012Validator({"$ref": f"#/$defs/{event}", "$defs": found["$defs"]})


def check_updates(lines: list[Line], event: str) -> None:
    """What is stuck is told again with numbers 1, 2, 3 …, each at twice the age at least."""
    by_id: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["event"] == event:
            thing = line[event.removesuffix("_stuck")]
            by_id[thing["id"]].append(thing)
    for identity, things in by_id.items():
        assert [thing["update"] for thing in things] == list(range(1, len(things) + 1)), identity
        ages_ms = [thing.get("open_for_at_least_ms", thing["elapsed_ms"]) for thing in things]
        assert ages_ms == sorted(ages_ms), identity


def check_ends(lines: list[Line], stuck: str, ended: str, *, was_stopped: bool) -> None:
    """Nothing ends twice; what was stuck ends once, and is not stuck afterwards."""
    ends = Counter(line[ended]["id"] for line in lines if line["event"] == ended)
    assert [identity for identity, count in ends.items() if count > 1] == []
    over: set[str] = set()
    open_now: set[str] = set()
    for line in lines:
        if line["event"] == stuck:
            assert line[ended]["id"] not in over, line["message"]
            open_now.add(line[ended]["id"])
        elif line["event"] == ended:
            over.add(line[ended]["id"])
            open_now.discard(line[ended]["id"])
    assert was_stopped or not open_now, open_now


def check_stalls(lines: list[Line]) -> None:
    """Each absence from an event loop is told with numbers 1, 2, 3 …, and never without something ready."""
    latest: dict[int, tuple[int, float]] = {}
    for line in lines:
        if line["event"] == "event_loop_stall":
            loop, thread = line["event_loop"], line["thread"]["id"]
            assert loop["ready"], line["message"]
            update, away_ms = latest.get(thread, (0, 0.0))
            if loop["update"] != 1:
                assert (loop["update"], loop["away_ms"] > away_ms) == (update + 1, True), line["message"]
            latest[thread] = loop["update"], loop["away_ms"]


def check_counts(lines: list[Line]) -> None:
    """The last `stats` agrees with itself and with the lines before it."""
    stats = lines[-1]["stats"]
    for kind in ("lookups", "connects"):
        counts, event = stats[kind], f"{kind[:-1]}_stuck"
        ended = counts["ok"] + counts["failed"] + counts["abandoned"] + counts.get("end_unseen", 0)
        assert counts["in_flight"] == counts["started"] - ended, (kind, counts)
        # A lookup of a process that is not traced (only its parent is) is counted by nobody.
        own = [line for line in lines if line["event"] == event and line["cause"]["id"] != "child_process"]
        told = {line[kind[:-1]]["id"] for line in own}
        assert counts["stuck"] == len(told), (kind, counts, told)
    lost: Counter[str] = Counter()
    for line in lines:
        if line["event"] == "lost":
            lost[line["lost"]["where"]] += line["lost"]["count"]
    assert stats["lost"] == dict(lost)
