"""Truncated answers to programs that are known from packets only: the lookup goes on by TCP, and is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from play import SHORT, SOON
from program import shell

from ebpfdns.lab import topology
from ebpfdns.lab.faults import GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.skipif(shutil.which("dig") is None, reason="apt-get install bind9-dnsutils"),
]

CUT = {"transport": "udp", "truncate": True}


def lines_of_dig(sandbox: Sandbox, *script: dict[str, Any], options: str = "") -> list[Line]:
    """What is said of one question of dig to a server with this script."""
    fault = Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))
    with fault.setup(sandbox, options=SHORT):
        dig = f"exec dig +time=2 +tries=1 {options} {topology.NAME}"
        program = shell(sandbox, dig, stdout=subprocess.DEVNULL)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON, "--all") as agent:
            program.go()
            lines = agent.finish()
    return [line for line in lines if line.get("lookup", {}).get("api") == "wire"]


def test_the_answer_comes_by_tcp(sandbox: Sandbox) -> None:
    """One lookup with both questions, which is well when the second one is answered."""
    ended = only(lines_of_dig(sandbox, CUT, GOOD_ANSWER), "lookup")
    asked = [(query["network"]["transport"], query["truncated"]) for query in ended["lookup"]["queries"]]
    assert asked == [("udp", True), ("tcp", False)]
    assert ended["lookup"]["status"] == "ok"
    assert ended.get("cause") is None


def test_no_answer_comes_by_tcp(sandbox: Sandbox) -> None:
    """While the connection is silent the lookup is in flight, and the silence is TCP's."""
    lines = lines_of_dig(sandbox, CUT, {"transport": "tcp", "drop": True})
    stuck = of(lines, "lookup_stuck")
    assert stuck
    assert {line["cause"]["id"] for line in stuck} == {"tcp53_silent"}
    ended = only(lines, "lookup")
    assert ended["lookup"]["status"] == "failed"
    assert ended["cause"]["id"] == "tcp53_silent"


def test_a_truncated_answer_alone_has_failed(sandbox: Sandbox) -> None:
    """A program that takes an empty truncated answer for all there is has no address."""
    ended = only(lines_of_dig(sandbox, CUT, GOOD_ANSWER, options="+ignore"), "lookup")
    assert ended["lookup"]["status"] == "failed"
