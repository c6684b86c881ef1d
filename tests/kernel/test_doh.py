"""DNS over HTTPS that hangs: a program resolves names at a well-known address, past resolv.conf."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from play import SHORT, SOON
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.firewall import wall
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.skipif(
        not (shutil.which("nft") and shutil.which("ip")), reason="apt-get install nftables iproute2"
    ),
]

RESOLVER = "9.9.9.9"
NAME = "www.lab.test"


@pytest.fixture(scope="module")
def walled() -> Iterator[Sandbox]:
    """A sandbox whose packets to the public resolver get lost."""
    with Sandbox() as sandbox:
        assert sandbox.popen(["ip", "address", "add", f"{RESOLVER}/32", "dev", "lo"]).wait() == 0
        wall(sandbox, "input", f"ip daddr {RESOLVER} tcp dport 443 drop")
        yield sandbox


def stuck(sandbox: Sandbox, argv: list[object], fault: Fault, updates: int) -> list[Line]:
    """What is said of its connect up to this update."""
    with fault.setup(sandbox, options=SHORT):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON, "--all") as agent:
            program.go()
            agent.wait_for(
                lambda line: line["event"] == "connect_stuck" and line["connect"]["update"] == updates
            )
            program.process.kill()
            return agent.finish()


def verdicts(lines: list[Line]) -> list[tuple[str, str]]:
    return [(line["cause"]["id"], line["cause"]["confidence"]) for line in of(lines, "connect_stuck")]


def test_a_resolver_that_no_lookup_gave(walled: Sandbox, programs: dict[str, Path]) -> None:
    """Such a connection is told as a way past resolv.conf: likely, when it hangs for a second; never sure."""
    argv = [of_this_machine(programs, "connector-glibc"), "--address", RESOLVER, "--port", 443]
    lines = stuck(walled, argv, FAULTS["healthy"], 3)
    assert verdicts(lines)[:3] == [("bypass", "possible"), ("bypass", "possible"), ("bypass", "likely")]
    last = of(lines, "connect_stuck")[2]
    assert [fact["fact"] for fact in last["cause"]["evidence"]] == ["server_not_in_resolv_conf"]
    assert last["cause"]["evidence"][0]["server"] == RESOLVER
    assert last["connect"]["lookup"] is None
    assert of(lines, "lookup") + of(lines, "lookup_stuck") == []


def test_a_resolver_that_a_lookup_gave(walled: Sandbox, programs: dict[str, Path]) -> None:
    """An address that the program was given by DNS is an application's: the connection after DNS hangs."""
    server = ServerPlan((topology.SERVER_1,), ({"answer": [RESOLVER]},))
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--connect", 443]
    lines = stuck(walled, argv, Fault("own", "The test's own.", servers=(server,)), 3)
    assert {cause for cause, _ in verdicts(lines)} == {"connect_after_dns"}
    assert of(lines, "connect_stuck")[0]["connect"]["lookup"]["name"] == NAME
    assert only(lines, "lookup")["lookup"]["status"] == "ok"
