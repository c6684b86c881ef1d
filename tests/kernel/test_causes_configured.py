"""Causes that a resolv.conf tells, on real programs: it is empty, replaced, mounted, or plays no part."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from play import SHORT, SOON
from program import Program, of_this_machine, shell

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan
from ebpfdns.lab.namespace import bare_python

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

ONE, TWO = topology.SERVER_1, topology.SERVER_2
NAME = topology.NAME
needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="apt-get install bind9-dnsutils")


def servers(one: dict[str, Any], two: dict[str, Any]) -> Fault:
    plans = (ServerPlan((ONE,), (one,)), ServerPlan((TWO,), (two,)))
    return Fault("own", "The test's own.", servers=plans)


SILENT_AND_GOOD = servers({"drop": True}, GOOD_ANSWER)


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def facts(line: Line) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


def traced(sandbox: Sandbox, fault: Fault, words: tuple[str, ...]) -> list[Line]:
    """The lines about the lab's target with these words."""
    with fault.setup(sandbox, options=SHORT):
        program = Program(sandbox, bare_python(*words, "--name", NAME))
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            return agent.finish()


def of_command(sandbox: Sandbox, words: str) -> list[Line]:
    """The lines about a program that a shell becomes."""
    program = shell(sandbox, f"exec {words}", stdout=subprocess.DEVNULL)
    with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
        program.go()
        return agent.finish()


def test_a_file_that_is_not_read_again(sandbox: Sandbox) -> None:
    """A glibc that may not read the file again asks the old server, and that is told."""
    stale = FAULTS["stale_resolv_conf"]
    lines = traced(sandbox, stale, stale.program)
    ended = only(lines, "lookup")
    assert verdict(ended) == ("stale_resolv_conf", "confirmed")
    assert facts(ended)[:2] == ["resolv_conf_changed", "server_not_in_resolv_conf"]
    assert ended["lookup"]["queries"][0]["server"]["address"] == ONE
    assert TWO in ended["cause"]["summary"]
    assert {verdict(line)[0] for line in of(lines, "lookup_stuck")} == {"stale_resolv_conf"}


def test_a_file_that_is_read_again(sandbox: Sandbox) -> None:
    """One that may read it asks the new server: nothing is stale, and nothing is told."""
    stale = replace(FAULTS["stale_resolv_conf"], options="")
    lines = traced(sandbox, stale, stale.program)
    assert of(lines, "lookup_stuck") + of(lines, "lookup") == []


def test_a_dangling_link(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A link that leads nowhere names no server, and is told with its target."""
    with FAULTS["no_nameserver"].setup(sandbox, options=SHORT):
        place = sandbox.root / "etc/resolv.conf"
        place.unlink()
        place.symlink_to("/run/systemd/resolve/stub-resolv.conf")
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = agent.finish()
    ended = only(lines, "lookup")
    assert verdict(ended) == ("no_nameserver", "confirmed")
    assert facts(ended) == ["resolv_conf_empty", "socket_error"]
    assert "-> /run/systemd/resolve/stub-resolv.conf" in ended["cause"]["summary"]


def test_a_silent_server_of_home(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Where something listens on 127.0.0.1 an empty file may be meant so: silence stays silence."""
    home = Fault("own", "The test's own.", (), (ServerPlan(("127.0.0.1",), ({"drop": True},)),))
    with home.setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = agent.finish()
    assert verdict(only(lines, "lookup")) == ("ns_silent", "likely")
    assert "resolv_conf_empty" in facts(only(lines, "lookup"))


def test_a_mounted_file_that_was_replaced(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """In a mount the old file lives on: that it was replaced outside is told beside the silence."""
    with SILENT_AND_GOOD.setup(sandbox, options=SHORT):
        outside = sandbox.new_file("outside")
        outside.write_text(f"nameserver {ONE}\noptions {SHORT}\n", encoding="ascii")
        mount = ["mount", "--bind", str(outside), "/etc/resolv.conf"]
        assert sandbox.popen(mount, stderr=subprocess.PIPE).wait() == 0
        fresh = sandbox.new_file("fresh")
        fresh.write_text(f"nameserver {TWO}\n", encoding="ascii")
        fresh.rename(outside)
        # It lives on: what a process that has ended saw cannot be read any more.
        argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--linger"]
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            agent.wait_for(lambda line: line["event"] == "lookup")
            program.process.kill()
            lines = agent.finish()
    ended = only(lines, "lookup")
    assert verdict(ended) == ("ns_silent", "confirmed")
    assert "resolv_conf_changed" in facts(ended)


@needs_dig
def test_dig_asks_whom_it_is_told_to(sandbox: Sandbox) -> None:
    """A silent server that is given on the command line is the application's own choice."""
    with servers(GOOD_ANSWER, {"drop": True}).setup(sandbox, options=SHORT):
        lines = of_command(sandbox, f"dig +time=2 +tries=1 @{TWO} {NAME}")
    stuck = of(lines, "lookup_stuck")
    assert stuck
    assert {verdict(line)[0] for line in stuck} == {"bypass"}
    assert verdict(stuck[-1]) == ("bypass", "confirmed")
    assert "server_not_in_resolv_conf" in facts(stuck[-1])
    assert "no_reply" in facts(stuck[-1])


@needs_dig
def test_dig_meets_a_server_that_drops_edns(sandbox: Sandbox) -> None:
    """Its plain question is answered, its next one has an OPT record and is not: that is what tells."""
    drops = Fault(
        "own", "The test's own.", servers=(ServerPlan((ONE,), ({"edns": True, "drop": True}, GOOD_ANSWER)),)
    )
    with drops.setup(sandbox, options=SHORT):
        lines = of_command(sandbox, f"dig +time=2 +tries=1 plain.{NAME} +noedns {NAME} +edns")
    stuck = of(lines, "lookup_stuck")
    assert [verdict(line) for line in stuck] == [("edns_dropped", "likely")] * len(stuck)
    assert facts(stuck[-1]) == ["edns_unanswered", "small_answers_pass", "no_reply"]


@needs_dig
def test_dig_asks_the_server_of_the_file(sandbox: Sandbox) -> None:
    """A program that speaks DNS itself but asks whom the file names bypasses nothing."""
    with SILENT_AND_GOOD.setup(sandbox, options=SHORT):
        lines = of_command(sandbox, f"dig +time=2 +tries=1 {NAME}")
    assert {verdict(line)[0] for line in of(lines, "lookup_stuck")} == {"ns_silent"}
