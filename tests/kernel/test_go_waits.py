"""Goroutines inside a lookup, found in the memory of Go programs that hang, without a probe."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from gotool import VERSIONS
from program import Program

from ebpfdns.explain.report import report
from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe import inspection
from ebpfdns.publish.schema.inspection import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="a sandbox needs root")]

NAME = "www.lab.test"
DEADLINE_S = 30.0
CALLERS = 3


def looks(pid: int) -> Iterator[dict[str, Any]]:
    """Reports, until the test has seen enough."""
    give_up_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_at:
        yield report(inspection.inspect(pid))
        time.sleep(0.05)
    pytest.fail("not seen")


def both_asked(found: dict[str, Any]) -> bool:
    asked = [one["questions"] for one in found["goroutines"] or ()]
    return len(asked) == CALLERS and any(len(questions) == 2 for questions in asked)


@pytest.mark.parametrize("stripped", [False, True], ids=["whole", "stripped"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_hung_program_tells_who_waits_for_what(version, stripped, sandbox, go_program):
    """Of three goroutines that want one name each is found with it, and one with both of its questions."""
    program = go_program(version=version, stripped=stripped)
    with FAULTS["silent"].setup(sandbox, options="timeout:60 attempts:1") as running:
        started = Program(sandbox, [program, "-name", NAME, "-way", "same", "-goroutines", CALLERS])
        started.go()
        found = next(one for one in looks(started.pid) if both_asked(one))
        started.process.kill()
        asked = {(query["type"], query["id"]) for query in running.queries()}
    jsonschema.validate(found, schema())
    assert [one["name"] for one in found["goroutines"]] == [NAME] * CALLERS
    questions = [question for one in found["goroutines"] for question in one["questions"]]
    assert {(question["type"], question["id"]) for question in questions} == asked
    assert {tuple(question["server"]) for question in questions} == {("192.0.2.53", 53)}
    assert all(question["name"] == f"{NAME}." and question["transport"] == "udp" for question in questions)
    assert found["resolver"]["go_resolver"]["choice"] == "go"
    assert found["resolver"]["go_resolver"]["version"] == f"go{version}"
