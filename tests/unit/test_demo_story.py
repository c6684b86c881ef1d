"""The demo's words and options: what can be checked without root."""

from __future__ import annotations

import os
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.commands import demo
from ebpfdns.errors import HostCannotTraceError, UsageError
from ebpfdns.lab import stage, story
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import PACKAGE_PARENT

CAUSE = {
    "id": "ns_silent",
    "confidence": "confirmed",
    "summary": "Nobody answers.",
    "remedy": "dig @192.0.2.53",
}


def stuck(update: int = 1, **more: object) -> dict[str, Any]:
    lookup = {"id": "7-1", "name": "www.lab.test", "elapsed_ms": 1000.0 * update, "update": update}
    return {"event": "lookup_stuck", "lookup": lookup, "cause": CAUSE, **more}


def ended(status: str = "failed", lookup_id: str = "7-1", **more: object) -> dict[str, Any]:
    lookup = {"id": lookup_id, "name": "www.lab.test", "duration_ms": 3004.2, "status": status, **more}
    return {"event": "lookup", "lookup": lookup}


def test_stuck_is_told_with_cause_and_remedy() -> None:
    """The words before a lookup_stuck line name the lookup, its age, the cause and the remedy."""
    words = "\n".join(story.before(stuck()))
    for piece in ("www.lab.test", "1.0 s", "Nobody answers.", "ns_silent, confirmed", "dig @192.0.2.53"):
        assert piece in words


def test_end_is_told_with_its_error() -> None:
    """The words before a lookup line say how the lookup ended and how long it took."""
    words = "\n".join(story.before(ended(error={"type": "EAI_AGAIN"})))
    assert "3.0 s" in words
    assert "failed with EAI_AGAIN" in words


def test_connect_is_told_with_its_address() -> None:
    """The words before a connect_stuck line name the address and the lookup it came from."""
    connect = {
        "id": "7-c1",
        "elapsed_ms": 1000.0,
        "server": {"address": "192.0.2.80", "port": 443},
        "lookup": {"id": "7-1", "name": "www.lab.test"},
    }
    words = "\n".join(story.before({"event": "connect_stuck", "connect": connect, "cause": CAUSE}))
    assert "192.0.2.80 port 443" in words
    assert "www.lab.test" in words


def test_a_kind_unknown_here_is_told_by_its_own_message() -> None:
    """A kind of line that the demo has no words for is introduced by the agent's message."""
    assert story.before({"event": "news", "message": "it did not come back"}) == ["it did not come back"]


@pytest.mark.parametrize(
    ("syscall", "held_up", "words"),
    [
        ("futex", "www.lab.test", "www.lab.test waits there, and it sits in futex"),
        (None, None, "something else"),
    ],
)
def test_a_stall_is_told_with_what_waits(syscall: str | None, held_up: str | None, words: str) -> None:
    """The words before an event_loop_stall line say for how long, what waits, and what the thread does."""
    lookup = {"id": "7-1", "name": held_up} if held_up else None
    loop = {"away_ms": 1500.0, "doing": {"syscall": syscall}, "lookup": lookup}
    told = "\n".join(story.before({"event": "event_loop_stall", "event_loop": loop}))
    assert "1.5 s" in told
    assert words in told


@given(
    st.sampled_from(sorted(story.TELLERS)),
    st.dictionaries(
        st.sampled_from(["lookup", "connect", "target", "stats", "lost", "cause"]),
        st.none()
        | st.dictionaries(st.sampled_from(["name", "server", "error", "coverage", "agent"]), st.none()),
    ),
)
def test_nothing_is_too_absent_to_tell(event: str, fields: dict[str, Any]) -> None:
    """Whatever part of a line is null or absent, there are words, and none looks like a JSON line."""
    words = story.before({"event": event, **fields})
    assert words
    assert not any(sentence.startswith("{") for sentence in words)


def test_ending_compares_report_and_end() -> None:
    """The last sentence says when the lookup was reported, when it ended, and that the cause was right."""
    seen = story.Seen([stuck(), stuck(2), ended()])
    sentence = story.ending(seen, "ns_silent")
    assert "reported 1.0 s after it began" in sentence
    assert "ended at 3.0 s" in sentence
    assert "that is what the agent said" in sentence


def test_ending_admits_another_cause() -> None:
    """The last sentence does not hide that the agent's cause is not the lab's."""
    sentence = story.ending(story.Seen([stuck(), ended()]), "first_ns_dead")
    assert "its cause was first_ns_dead; the agent said ns_silent" in sentence


@pytest.mark.parametrize(
    ("lines", "gets_stuck", "is_short"),
    [
        ([stuck(), ended()], True, False),
        ([ended()], True, True),
        ([stuck()], True, True),
        ([stuck(), ended(lookup_id="another")], True, True),
        ([ended("ok")], False, False),
        ([], False, True),
    ],
)
def test_shortfall(lines: list[dict[str, Any]], *, gets_stuck: bool, is_short: bool) -> None:
    """A demo without a stuck line that is closed by the same id, where one is due, is not a success."""
    assert bool(story.shortfall(story.Seen(lines), gets_stuck=gets_stuck)) is is_short


def test_result_of_the_program() -> None:
    """The program's result is told as it is: addresses, an error, or that it was stopped."""
    worked = {"ok": True, "addresses": ["192.0.2.10", "192.0.2.10"], "error": None, "lookup_ms": 3.5}
    assert story.result(worked) == "What the program itself got: 192.0.2.10, 3.5 ms after it had asked."
    failed = {"ok": False, "addresses": [], "error": "EAI_AGAIN", "lookup_ms": 3001.0}
    assert "EAI_AGAIN, 3.0 s after" in story.result(failed)
    assert "stopped" in story.result(None)


def test_every_plan_is_of_a_fault() -> None:
    """No plan is left over for a fault that is gone."""
    assert set(stage.PLANS) <= set(FAULTS)


def test_list_names_every_fault() -> None:
    """--list prints each fault with its sentence, and needs no root."""
    listed = CliRunner().invoke(demo.command, ["--list"])
    assert listed.exit_code == 0
    for fault in FAULTS.values():
        assert any(
            line.split()[0] == fault.name and fault.sentence in line for line in listed.output.splitlines()
        )


def test_unknown_fault_is_a_usage_error() -> None:
    """A fault that does not exist is refused with exit code 2 and the names that do."""
    refused = CliRunner().invoke(demo.command, ["slow_tuesday"])
    assert refused.exit_code == 2
    assert "first_ns_dead" in refused.output


def test_without_root_it_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without rights is told what to type."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    error = CliRunner().invoke(demo.command, []).exception
    assert isinstance(error, HostCannotTraceError)
    assert error.remedy == "sudo ebpfdns demo"


@pytest.mark.parametrize("text", ["5s", "soon"])
def test_a_threshold_that_shows_nothing_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A --stuck-after beyond the end of the demo's lookups, or no time at all, is refused."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    refused = CliRunner().invoke(demo.command, ["--stuck-after", text], standalone_mode=False)
    assert isinstance(refused.exception, UsageError | click.UsageError)


def test_the_agent_is_not_misled_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of `attach` in the caller's environment do not reach the demo's agent."""
    monkeypatch.setenv("EBPFDNS_ATTACH_OUTPUT", "/var/log/mine.jsonl")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    environment = stage._agent_environment()
    assert "EBPFDNS_ATTACH_OUTPUT" not in environment
    assert environment["PYTHONPATH"].split(":") == [str(PACKAGE_PARENT), "/elsewhere"]
