"""Event loops that are not served, from the item to the line."""

from __future__ import annotations

import facts
import pytest
from facts import SERVER, at, frames, query, scan, stall, stalls, wire_lookup
from test_pipeline import VALIDATOR, after, kinds

from ebpfdns.correlate import items
from ebpfdns.model import boundary
from ebpfdns.pipeline import Pipeline

EVENTFD = {"fd": 9, "kind": "eventfd", "is_edge_triggered": False, "ready_ns": 5_000_000}
DNS = {
    "fd": 5,
    "kind": "udp",
    "is_edge_triggered": True,
    "local": ["127.0.0.1", 40001],
    "remote": [SERVER, 53],
    "rx_queue_bytes": 832,
    "ready_ns": 0,
}
UNREAD = boundary.LookupFlag.NAME_IS_WIRE | boundary.LookupFlag.ANSWER_UNREAD


def answered(start=0.1):
    """A wire lookup whose answer came to port 40001 and lies there."""
    return wire_lookup(start, query(sent=start, reply=start + 0.1, local_port=40001), flags=UNREAD)


def test_a_stall_is_told_as_it_doubles():
    """At 1 and 2 s, not in between; after a return anew."""
    lines = after(
        stalls(1.0, stall()),
        stalls(1.5, stall()),
        stalls(2.0, stall()),
        stalls(3.6, stall(away_since=2.5)),
    )
    assert kinds(lines) == ["event_loop_stall"] * 3
    assert [line["event_loop"]["update"] for line in lines] == [1, 2, 1]
    assert [line["event_loop"]["away_ms"] for line in lines] == [1000.0, 2000.0, 1100.0]
    assert lines[0]["event_loop"]["last_return"] == lines[1]["event_loop"]["last_return"]


def test_what_a_stall_carries():
    """Who, since when, what waits, what it does instead; what is not known is null."""
    (line,) = after(stalls(1.0, stall(ready=[EVENTFD], state="S", syscall="futex", throttled_ns=7_000_000)))
    assert line["thread"] == {"id": facts.TID, "name": "worker"}
    loop = line["event_loop"]
    assert (loop["kind"], loop["fd"], loop["lookup"]) == ("epoll", 4, None)
    nothing = {"socket": None, "purpose": None, "rx_queue_bytes": None}
    assert loop["ready"] == [{"fd": 9, **nothing, "ready_ms": 5.0}]
    assert loop["doing"] == {"state": "S", "syscall": "futex", "throttled_ms": 7.0}


def test_the_stall_names_the_lookup_that_it_holds_up():
    """One id in both lines; the socket has waited since its answer came."""
    stuck, told, ended = after(
        scan(1.2, answered()),
        stalls(1.2, stall(ready=[EVENTFD, DNS], lookups=[answered()])),
        frames(1.6, wire_lookup(0.1, query(sent=0.1, reply=0.2, local_port=40001), end=1.5, flags=UNREAD)),
    )
    assert told["event_loop"]["lookup"]["id"] == stuck["lookup"]["id"] == ended["lookup"]["id"]
    waiting = told["event_loop"]["ready"][1]
    assert (waiting["purpose"], waiting["rx_queue_bytes"], waiting["ready_ms"]) == ("dns", 832, 1000.0)
    assert waiting["socket"]["server"] == {"address": SERVER, "port": 53}
    assert ended["lookup"]["duration_ms"] == 1400.0
    assert ended["cause"]["id"] == "reply_not_read"


@pytest.mark.parametrize(
    ("ready", "is_told"),
    [
        pytest.param([EVENTFD], True, id="an eventfd"),
        pytest.param([DNS], False, id="edge triggered, perhaps left there on purpose"),
        pytest.param([DNS | {"is_edge_triggered": False}], True, id="level triggered"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_only_what_is_certain_is_ready(ready, is_told):
    """Without something that is ready for sure there is no stall."""
    assert bool(after(stalls(1.0, stall(ready=ready)))) is is_told


def test_an_odd_state_is_not_told():
    """A state that the contract does not name is null, and so is "running" as a system call."""
    (line,) = after(stalls(1.0, stall(state="?", syscall="running")))
    assert line["event_loop"]["doing"] == {"state": None, "syscall": None, "throttled_ms": None}


def test_names_are_redacted_here_too():
    """With --redact-names the stall has the hash that the lookup has."""
    pipeline = Pipeline()
    pipeline.feed(facts.started(redact_key="key"))
    pipeline.feed(facts.attached())
    stuck = pipeline.feed(scan(1.2, answered()))[0]
    told = pipeline.feed(stalls(1.2, stall(ready=[DNS], lookups=[answered()])))[0]
    assert [error.message for error in VALIDATOR.iter_errors(told)] == []
    assert told["event_loop"]["lookup"]["name"] == stuck["lookup"]["name"]
    assert told["event_loop"]["lookup"]["name"].startswith("redacted-")


def test_bytes_that_say_nothing_are_a_loss():
    """A wait or a lookup that cannot be taken apart is counted, and what is left is told."""
    lines = after(stalls(1.0, stall(wait=b"junk"), stall(lookups=[b"junk"])))
    assert sorted(kinds(lines)) == ["event_loop_stall", "lost", "lost"]


def test_a_process_that_is_gone_is_forgotten():
    """Its absences do not stay in memory."""
    pipeline = Pipeline()
    for item in (facts.started(), facts.attached(), stalls(1.0, stall())):
        pipeline.feed(item)
    assert not pipeline.is_stall_due(stall().key, at(0), at(1.1))
    pipeline.feed(items.Gone(**facts.clock(2), pid=facts.PID, status="exited"))
    assert pipeline.is_stall_due(stall().key, at(0), at(1.1))
