"""Causes that are no server's fault: a firewall, TCP that is blocked or silent, a program that is stopped."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from play import SHORT, SOON
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan
from ebpfdns.lab.firewall import wall as wall_in
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="apt-get install nftables")
CUT = {"transport": "udp", "truncate": True}
NAME = "www.lab.test"


@pytest.fixture
def walled() -> Iterator[Callable[[str, str], Sandbox]]:
    """A sandbox of the test's own, behind a rule at a hook of nftables."""
    with Sandbox() as sandbox:

        def wall(hook: str, rule: str) -> Sandbox:
            wall_in(sandbox, hook, rule)
            return sandbox

        yield wall


def serving(*script: dict[str, Any]) -> Fault:
    return Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def facts(line: Line) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


def is_update(number: int) -> Callable[[Line], bool]:
    return lambda line: line["event"] == "lookup_stuck" and line["lookup"]["update"] == number


@needs_nft
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_own_firewall(programs: dict[str, Path], walled: Callable[[str, str], Sandbox], libc: str) -> None:
    """When this host lets no question leave, its firewall is named, for what it dropped was seen."""
    sandbox = walled("output", "udp dport 53 drop")
    with FAULTS["healthy"].setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, f"lookup-{libc}"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = agent.finish()
    assert len(of(lines, "lookup")) == 1
    for line in of(lines, "lookup_stuck") + of(lines, "lookup"):
        assert verdict(line) == ("local_firewall", "confirmed")
        assert facts(line) == ["send_refused_eperm"]
        assert "nft list ruleset" in line["cause"]["remedy"]
        (query,) = line["lookup"]["queries"]
        assert (query["state"], query["error"], query["id"]) == ("failed", "EPERM", None)
        assert query["server"]["address"] == topology.SERVER_1


@needs_nft
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_answers_dropped_here(
    programs: dict[str, Path], walled: Callable[[str, str], Sandbox], libc: str
) -> None:
    """Answers that reach this host and are dropped by it are no silence of the server."""
    sandbox = walled("input", "udp sport 53 drop")
    with FAULTS["healthy"].setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, f"lookup-{libc}"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = agent.finish()
    assert verdict(only(lines, "lookup")) == ("local_firewall", "confirmed")
    assert facts(only(lines, "lookup")) == ["reply_dropped"]
    stuck = of(lines, "lookup_stuck")
    assert {verdict(line) for line in stuck} <= {
        ("local_firewall", "likely"),
        ("local_firewall", "confirmed"),
    }
    assert verdict(stuck[0])[1] == "likely"


@needs_nft
def test_own_firewall_only_for_tcp(programs: dict[str, Path], walled: Callable[[str, str], Sandbox]) -> None:
    """SYNs that this host drops itself look like a closed port far away, and are told apart."""
    sandbox = walled("output", "tcp dport 53 drop")
    with serving(CUT, GOOD_ANSWER).setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(is_update(3))
            lines = agent.stop()
    assert verdict(line) == ("local_firewall", "confirmed")
    assert verdict(of(lines, "connect_stuck")[-1]) == ("local_firewall", "confirmed")


@needs_nft
def test_tcp_blocked(programs: dict[str, Path], walled: Callable[[str, str], Sandbox]) -> None:
    """A truncated answer and a TCP port that swallows SYNs: the lookup and its connect say the same."""
    sandbox = walled("input", "tcp dport 53 drop")
    with serving(CUT, GOOD_ANSWER).setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(is_update(4))
            lines = agent.stop()
    assert verdict(line) == ("tcp53_blocked", "confirmed")
    assert facts(line) == ["syn_retransmitted", "reply_truncated"]
    assert line["lookup"]["waiting_on"]["syscall"] == "connect"
    connect = of(lines, "connect_stuck")[-1]
    assert connect["cause"]["id"] == "tcp53_blocked"
    assert (connect["connect"]["purpose"], connect["connect"]["tcp"]["state"]) == ("dns", "SYN_SENT")


def test_tcp_silent(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A server that takes the question by TCP and never answers holds glibc for ever, and is named."""
    with serving(CUT, {"transport": "tcp", "drop": True}).setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON, "--all") as agent:
            program.go()
            agent.wait_for(is_update(3))
            program.process.kill()
            lines = agent.finish()
    stuck = of(lines, "lookup_stuck")
    assert [verdict(line) for line in stuck][::2] == [
        ("tcp53_silent", "likely"),
        ("tcp53_silent", "confirmed"),
    ]
    assert facts(stuck[-1]) == ["no_reply", "rx_queue_empty"]
    assert stuck[-1]["lookup"]["waiting_on"]["syscall"] == "read"
    assert only(lines, "lookup")["lookup"]["status"] == "abandoned"
    assert only(lines, "connect")["connect"]["status"] == "ok"


def test_stopped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A program that is stopped in mid-lookup is named as what it waits for, also after it goes on."""
    slow = serving({**GOOD_ANSWER, "delay_ms": 200})
    with slow.setup(sandbox, options="timeout:5 attempts:1"):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            while not has_asked(program):
                os.sched_yield()
            program.process.send_signal(signal.SIGSTOP)
            (line,) = agent.wait_for(is_update(1))
            program.process.send_signal(signal.SIGCONT)
            lines = agent.finish()
    assert verdict(line)[0] == "target_stopped"
    assert "process_stopped" in facts(line)
    ended = only(lines, "lookup")
    assert ended["lookup"]["status"] == "ok"
    assert ended["cause"]["id"] == "target_stopped"


def has_asked(program: Program) -> bool:
    """Whether a UDP socket in there is connected to port 53."""
    sockets = Path(f"/proc/{program.pid}/net/udp").read_text().splitlines()[1:]
    return any(line.split()[2].endswith(":0035") for line in sockets)


def test_servfail_on_the_wire(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Without symbols each round of SERVFAIL is a lookup of its own, with the same cause and error."""
    with FAULTS["servfail"].setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-musl-stripped"), "--name", NAME])
        with Agent("attach", "--pid", program.pid) as agent:
            program.go()
            lines = agent.finish()
    ended = of(lines, "lookup")
    assert ended
    assert {line["lookup"]["error"]["type"] for line in ended} == {"SERVFAIL"}
    assert {line["cause"]["id"] for line in ended} == {"rcode_retry"}
    assert {line["lookup"]["name"] for line in ended} == {NAME}
