"""The closing summary of `run`, and its JUnit form: counted, grouped, and safe for any reader."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.publish import junit, plain
from ebpfdns.publish.closing import MOST_SHOWN, MOST_THINGS, Closing
from ebpfdns.publish.lines import printable

Event = dict[str, Any]
COUNTS = {"started": 7, "ok": 5, "failed": 1, "abandoned": 0, "stuck": 2, "in_flight": 1}
STATS = {"event": "stats", "stats": {"lookups": COUNTS, "lost": {}}}


def stuck(name: str, identity: str, *, cause: str = "ns_silent", update: int = 1) -> Event:
    why = {
        "id": cause,
        "confidence": "likely",
        "summary": f"Because of {cause}.",
        "evidence": [],
        "remedy": "dig",
    }
    lookup = {
        "id": identity,
        "name": name,
        "status": "in_flight",
        "update": update,
        "elapsed_ms": 1000.0 * update,
    }
    who = {"pid": 7, "executable": {"name": "api.test", "path": None}}
    found = {"event": "lookup_stuck", "ts": "2026-11-25T04:10:54.209909Z", "message": "m", "process": who}
    return found | {"lookup": lookup, "cause": why}


def ended(name: str, identity: str, *, cause: str = "ns_silent", status: str = "failed") -> Event:
    found = stuck(name, identity, cause=cause)
    found["lookup"] |= {"status": status, "duration_ms": 4210.0, "error": {"type": "EAI_AGAIN"}}
    return found | {"event": "lookup"}


def text(closing: Closing, code: int = 0) -> str:
    return "".join(map(plain.text_of, closing.blocks("go test ./...", code)))


def xml(closing: Closing) -> ET.Element:
    made = junit.document(
        closing, command="go test", host="ci-7", started="2026-11-25T04:10:54.2Z", duration_s=1.5
    )
    return ET.fromstring(made)[0]  # noqa: S314 - our own text


def test_a_healthy_run_is_told_in_one_line() -> None:
    """Nothing stuck: one line with the numbers, and one passed case."""
    closing = Closing()
    closing.take([STATS | {"stats": {"lookups": COUNTS | {"stuck": 0}, "lost": {}}}])
    assert text(closing) == (
        "ebpfdns: 7 lookups, 5 ok, 1 failed, 1 in flight still, none got stuck. go test ./... ended with 0.\n"
    )
    suite = xml(closing)
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    assert [len(case) for case in suite.findall("testcase")] == [0]


def test_what_was_stuck_is_told_with_cause_and_remedy() -> None:
    """A stuck lookup: how long, how it ended, why, what to try; as a case its type is the cause."""
    closing = Closing()
    closing.take([stuck("a.test", "7-1"), stuck("a.test", "7-1", update=2), ended("a.test", "7-1"), STATS])
    told = text(closing, 1)
    assert (
        "lookup of a.test (api.test) was stuck for 4.2 s, then failed with EAI_AGAIN: Because of ns_silent."
        in told
    )
    assert "try:      dig" in told
    (case,) = xml(closing).findall("testcase")
    assert (case.get("classname"), case.get("name"), case.get("time")) == (
        "ebpfdns.api.test",
        "lookup of a.test",
        "4.210",
    )
    assert [(one.get("type"), one.get("message")) for one in case] == [("ns_silent", "Because of ns_silent.")]
    assert closing.stuck_lookups == 1


def test_lookups_of_one_name_and_cause_are_one_reason() -> None:
    """Three of one kind are told once, with their number; another cause is another reason."""
    closing = Closing()
    closing.take([stuck("a.test", f"7-{number}") for number in range(3)])
    closing.take([stuck("a.test", "7-9", cause="late_reply")])
    assert "stuck 3 times for up to 1.0 s, had not ended when tracing did" in text(closing)
    assert text(closing).count("lookup of a.test") == 2
    names = [case.get("name") for case in xml(closing).findall("testcase")]
    assert names == ["lookup of a.test", *(f"lookup of a.test #{number}" for number in (2, 3, 4))]


def test_the_cause_said_in_the_end_counts() -> None:
    """What the last line says of the cause replaces what was said while it lasted; absent, that stays."""
    closing = Closing()
    quiet = ended("b.test", "7-2")
    quiet.pop("cause")
    closing.take(
        [stuck("a.test", "7-1"), ended("a.test", "7-1", cause="late_reply"), stuck("b.test", "7-2"), quiet]
    )
    assert [one.cause["id"] for one in closing.stuck("lookup")] == ["late_reply", "ns_silent"]


def test_a_storm_is_bounded_and_counted() -> None:
    """More stuck lookups than are remembered: all are counted, some are shown, and that is said."""
    closing = Closing()
    for number in range(MOST_THINGS + 7):
        closing.take([stuck(f"n{number}.test", f"7-{number}")])
    assert closing.stuck_lookups == MOST_THINGS + 7
    assert f"{MOST_THINGS - MOST_SHOWN} more were stuck" in text(closing)
    assert xml(closing).findtext("system-out") == "7 more lookups got stuck\n"


def test_losses_and_what_goes_on_are_told() -> None:
    """What was not seen, and what is no longer traced, stands in the summary."""
    closing = Closing()
    target = {"status": "detached", "coverage": {"missing": []}}
    closing.take([{"event": "target", "target": target | {"role": "supporting"}}])
    closing.take(
        [
            {"event": "target", "target": target},
            {"event": "stats", "stats": {"lookups": COUNTS, "lost": {"kernel_ring": 3}}},
        ]
    )
    assert "kernel_ring: 3" in text(closing)
    assert "1 process that it started goes on" in text(closing)


@given(st.binary(max_size=40))
def test_any_bytes_of_a_name_are_fit_for_xml(name: bytes) -> None:
    """Whatever a program looks up, the file stays well-formed, and the name is in it as lines have it."""
    closing = Closing()
    shown = printable(name)
    closing.take([stuck(shown, "7-1")])
    (case,) = xml(closing).findall("testcase")
    assert case.get("name") == f"lookup of {shown or 'a name'}"


@pytest.mark.parametrize(
    "attribute", ["name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"]
)
def test_a_suite_has_what_its_readers_want(attribute: str) -> None:
    """Jenkins, GitLab and GitHub read these; a time has no zone and no fraction in that form."""
    suite = xml(Closing())
    assert suite.get(attribute) is not None
    assert suite.get("timestamp") == "2026-11-25T04:10:54"
    assert [child.tag for child in suite] == ["properties", "testcase", "system-out", "system-err"]
