"""What goes wrong in Go programs only: each cause with its evidence, and not when it is nearly so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import go_faults
import pytest
from agent import of, only
from go_faults import CGO, GO_FAULTS
from gotarget import Flavour

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.timeout(400),  # a toolchain builds its standard library first
]


@pytest.fixture
def played(go_program: Callable[..., Path]) -> Callable[..., list[Line]]:
    """Plays one of them, by name; with other fields, when given."""

    def play(name: str, **changes: Any) -> list[Line]:
        made = GO_FAULTS[name]
        flavour = changes.get("needs", made.needs)
        return go_faults.play(made, go_program(**vars(flavour)), **changes)

    return play


def causes(lines: list[Line], event: str = "lookup_stuck") -> set[str]:
    return {line["cause"]["id"] for line in of(lines, event)}


def facts(line: Line) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


def lookups(line: Line) -> dict[str, int]:
    counts = line["stats"]["lookups"]
    return {key: counts[key] for key in ("started", "ok", "failed", "stuck")}


@pytest.mark.parametrize("needs", [Flavour(), Flavour(cgo=True)], ids=lambda flavour: flavour.name)
def test_goroutines_that_want_one_name(played: Callable[..., list[Line]], needs: Flavour) -> None:
    """Of ten goroutines one asks; nine wait for it, and are told its id, goroutine and cause."""
    environment = (CGO,) if needs.cgo else ()
    lines = played("one name, ten goroutines", needs=needs, environment=environment)
    first = [line for line in of(lines, "lookup_stuck") if line["lookup"]["update"] == 1]
    (leader,) = (line for line in first if line["lookup"]["queries"])
    followers = [line for line in first if line is not leader]
    assert leader["cause"]["id"] == "ns_silent"
    assert len(followers) == 9
    for line in followers:
        assert (line["cause"]["id"], line["cause"]["confidence"]) == ("coalesced_wait", "confirmed")
        assert facts(line) == ["leader_lookup", "query_sent"]
        told = line["cause"]["evidence"][0]
        assert (told["lookup"], told["cause"]) == (leader["lookup"]["id"], "ns_silent")
        assert told["goroutine"] == leader["lookup"]["goroutine"]["id"]
        assert "thread" not in line
    assert len({line["lookup"]["goroutine"]["id"] for line in first}) == 10
    assert lookups(lines[-1]) == {"started": 10, "ok": 0, "failed": 10, "stuck": 10}


def test_goroutines_that_want_names_of_their_own(played: Callable[..., list[Line]]) -> None:
    """Goroutines that look up different names each ask, and none is said to wait for another."""
    words = ("--way", "names", "--goroutines", 5)
    lines = played("one name, ten goroutines", words=words)
    assert causes(lines) == {"ns_silent"}
    assert lookups(lines[-1]) == {"started": 5, "ok": 0, "failed": 5, "stuck": 5}


def test_all_places_in_libc_are_taken(played: Callable[..., list[Line]]) -> None:
    """With 40 descriptors ten names are looked up; three more wait, and then have the server's cause."""
    lines = played("more names than threads")
    waiting = [line for line in of(lines, "lookup_stuck") if line["cause"]["id"] == "go_cgo_thread_limit"]
    assert len({line["lookup"]["id"] for line in waiting}) == 3
    assert waiting[-1]["cause"]["confidence"] == "confirmed"
    for line in waiting:
        assert facts(line)[:3] == ["thread_limit_reached", "query_sent", "leader_lookup"]
        taken = line["cause"]["evidence"][0]
        assert (taken["lookups"], taken["limit"], taken["limit_nofile"]) == (10, 10, 40)
        assert line["lookup"]["queries"] == []
    assert causes(lines) == {"ns_silent", "go_cgo_thread_limit"}
    assert causes(lines, "lookup") == {"ns_silent"}
    assert lookups(lines[-1]) == {"started": 13, "ok": 0, "failed": 13, "stuck": 13}


def test_just_enough_places_in_libc(played: Callable[..., list[Line]]) -> None:
    """Ten names on ten places are held up by the server alone; so are more names without libc."""
    words = ("--way", "names", "--goroutines", 10, "--nofile", 40)
    assert causes(played("more names than threads", words=words)) == {"ns_silent"}
    pure = played("more names than threads", needs=Flavour(), environment=(), options="timeout:1 attempts:1")
    assert causes(pure) == {"ns_silent"}


def test_nobody_reads_the_answer(played: Callable[..., list[Line]]) -> None:
    """The answer lies in its socket while a loop keeps the only processor: its thread is named."""
    lines = played("a loop on the only processor")
    unread = [line for line in of(lines, "lookup_stuck") if line["cause"]["id"] == "reply_not_read"]
    assert {line["cause"]["confidence"] for line in unread} == {"confirmed"}
    for line in unread:
        assert facts(line) == ["reply_seen", "rx_queue_not_empty", "thread_running_elsewhere"]
        assert line["cause"]["evidence"][2]["threads_running"] >= 1
    ended = only(lines, "lookup")
    assert (ended["lookup"]["status"], ended["cause"]["id"]) == ("ok", "reply_not_read")
    assert causes(lines) <= {"ns_silent", "reply_not_read"}


def test_a_loop_that_may_be_interrupted(played: Callable[..., list[Line]]) -> None:
    """The same loop, where Go may interrupt it, lets the answer be read at once."""
    lines = played("a loop on the only processor", environment=())
    assert causes(lines) <= {"ns_silent"}
    assert [line.get("cause") for line in of(lines, "lookup")] in ([], [None])


def test_the_file_has_just_changed(played: Callable[..., list[Line]]) -> None:
    """A lookup that asks the server of the old file is told so, how old the new one is, and when Go looks."""
    lines = played("a resolv.conf that has just changed")
    line = of(lines, "lookup_stuck")[0]
    assert (line["cause"]["id"], line["cause"]["confidence"]) == ("stale_resolv_conf", "confirmed")
    assert facts(line)[:4] == [
        "resolv_conf_changed",
        "server_not_in_resolv_conf",
        "resolv_conf_changed",
        "no_reply",
    ]
    assert line["cause"]["evidence"][2]["age_ms"] < 5000
    assert causes(lines) == causes(lines, "lookup") == {"stale_resolv_conf"}


def test_a_resolver_of_the_programs_own(played: Callable[..., list[Line]]) -> None:
    """A program that dials another server than the file names is not said to have read an old one."""
    words = ("--way", "custom", "--resolver", "192.0.2.53:53")
    silent = FAULTS["silent"]
    changes = {"fault": silent, "words": words, "options": "timeout:1 attempts:1"}
    lines = played("a resolv.conf that has just changed", **changes)
    assert "stale_resolv_conf" not in causes(lines) | causes(lines, "lookup")
    assert lookups(lines[-1]) == {"started": 1, "ok": 0, "failed": 1, "stuck": 1}


def test_a_dial_without_a_deadline(played: Callable[..., list[Line]]) -> None:
    """The name is there, the connection is not: that is told, with the lookup that gave the address."""
    lines = played("a dial without a deadline")
    looked_up = only(lines, "lookup")
    assert "cause" not in looked_up
    for line in of(lines, "connect_stuck"):
        assert line["cause"]["id"] == "connect_after_dns"
        assert line["connect"]["lookup"] == {"id": looked_up["lookup"]["id"], "name": "www.lab.test"}
    assert of(lines, "connect_stuck")[-1]["cause"]["confidence"] == "confirmed"
    assert causes(lines) == set()


def test_one_lookup_after_the_other(played: Callable[..., list[Line]]) -> None:
    """A time-out of half a minute and questions one after the other stand in the evidence of a silence."""
    lines = played("one lookup after the other")
    line = of(lines, "lookup_stuck")[0]
    assert causes(lines) == {"ns_silent"}
    (schedule,) = (told for told in line["cause"]["evidence"] if told["fact"] == "resolver_schedule")
    told = {key: schedule[key] for key in ("timeout_ms", "attempts", "servers", "one_at_a_time")}
    assert told == {"timeout_ms": 30_000, "attempts": 1, "servers": 1, "one_at_a_time": True}
    assert [query["type"] for query in line["lookup"]["queries"]] == ["A"]


def test_go_run_waits_for_its_child(played: Callable[..., list[Line]]) -> None:
    """`go run`, traced without --children, only waits: its child has the lookup."""
    lines = played("go run")
    assert causes(lines) == {"child_process"}
    assert {line["cause"]["confidence"] for line in of(lines, "lookup_stuck")} == {"confirmed"}
    assert lines[-1]["stats"]["lookups"]["started"] == 0
