"""Answers that come in fragments, of which some get lost on the way."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from play import play
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.firewall import fragmenting, small_packets

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.skipif(
        not (shutil.which("nft") and shutil.which("ip")), reason="apt-get install nftables iproute2"
    ),
]

LARGE: dict[str, Any] = {"answer": [topology.WEB] * 120}


def facts(line: dict[str, Any]) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


def verdicts(lines: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(line["cause"]["id"], line["cause"]["confidence"]) for line in lines}


def test_large_answers_are_lost(programs: dict[str, Path]) -> None:
    """A server that answers a small question and loses the fragments of a large answer likely does so."""
    argv = [of_this_machine(programs, "wire-glibc"), "--server", topology.SERVER_1, "--edns-later"]
    played = play(FAULTS["fragments_dropped"], {"it": [*argv, "--count", 2, "--timeout-ms", 700]})
    (ended,) = (line for line in played.of("lookup") if line["lookup"]["status"] == "failed")
    assert verdicts([*played.of("lookup_stuck"), ended]) == {("edns_dropped", "likely")}
    assert facts(ended) == ["fragments_incomplete", "small_answers_pass", "no_reply"]
    assert ended["cause"]["evidence"][0]["incomplete"] == 1


def test_only_large_answers(programs: dict[str, Path]) -> None:
    """Of a server that was never seen to answer they are a doubt, and its silence is not sure."""
    fault = Fault(
        "own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), (LARGE,)),), prepare=fragmenting
    )
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "www.lab.test", "--api", "gethostbyname"]
    played = play(fault, {"it": argv})
    ended = played.only("lookup")
    assert verdicts([*played.of("lookup_stuck"), ended]) == {("ns_silent", "likely")}
    assert facts(ended)[-1] == "fragments_incomplete"


def test_whole_answers(programs: dict[str, Path]) -> None:
    """Fragments that all arrive are an answer, and no word is said of them."""
    server = ServerPlan((topology.SERVER_1,), (LARGE,))
    fault = Fault("own", "The test's own.", servers=(server,), prepare=small_packets)
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "www.lab.test"]
    lines = play(fault, {"it": argv}, "--all").of("lookup")
    assert {(line["lookup"]["status"], line.get("cause")) for line in lines} == {("ok", None)}
