"""Programs that are known from packets only and ask again: after an error, they still are in one lookup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from play import play
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

TWO_ROUNDS = "timeout:1 attempts:2"  # musl: a round each 500 ms, three questions of each type in a round
NAME = "www.lab.test"


def serving(*script: dict[str, Any]) -> Fault:
    return Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


def verdict(line: dict[str, Any]) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def test_servfail_rounds(programs: dict[str, Path]) -> None:
    """A stripped static musl program that is told SERVFAIL again and again is in one lookup, which fails."""
    argv = [of_this_machine(programs, "lookup-musl-stripped"), "--name", NAME]
    played = play(FAULTS["servfail"], {"it": argv}, "--all", options=TWO_ROUNDS)
    ended = played.only("lookup")
    assert ended["lookup"]["api"] == "wire"
    assert [query["type"] for query in ended["lookup"]["queries"]] == ["A", "AAAA"]
    assert [query["attempt"] for query in ended["lookup"]["queries"]] == [6, 6]
    assert (ended["lookup"]["status"], ended["lookup"]["error"]["type"]) == ("failed", "SERVFAIL")
    assert ended["lookup"]["duration_ms"] == pytest.approx(1000, abs=200)
    assert {verdict(line) for line in played.of("lookup_stuck")} == {("rcode_retry", "confirmed")}
    assert verdict(ended) == ("rcode_retry", "confirmed")
    lookups = played.stats["lookups"]
    assert (lookups["started"], lookups["failed"]) == (1, 1)


def test_servfail_and_then_well(programs: dict[str, Path]) -> None:
    """A good answer to the repetition ends the lookup, well, and its queries say so."""
    argv = [of_this_machine(programs, "lookup-musl-stripped"), "--name", NAME]
    fault = serving({"rcode": 2, "type": "A", "nth": 1}, GOOD_ANSWER)
    ended = play(fault, {"it": argv}, "--all", options=TWO_ROUNDS).only("lookup")
    assert ended["lookup"]["status"] == "ok"
    assert {query["rcode"] for query in ended["lookup"]["queries"]} == {"NOERROR"}
