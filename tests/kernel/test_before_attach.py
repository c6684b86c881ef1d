"""Programs that are stuck before the agent comes: recognised within two seconds, followed, ended once."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from already_stuck import (
    NAME,
    SOON_S,
    STUCK,
    check_earlier,
    is_stopped,
    is_stuck,
    needs_nft,
    seconds_after_attach,
    serving,
    sits_in,
    stuck,
    verdict,
    wait_until,
    was_asked_again,
)
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER
from ebpfdns.lab.namespace import Sandbox
from ebpfdns.observe import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
]

CUT = {"transport": "udp", "truncate": True}
SILENT_TCP = ({**CUT}, {"transport": "tcp", "drop": True})


def test_a_silent_server(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The server it waits for is named within two seconds; what it asks later is its own; it ends once."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    repeated = stuck(sandbox, FAULTS["silent"], argv, options="timeout:2 attempts:5")
    with repeated as program, Agent("attach", "--pid", program.pid) as agent:
        agent.wait_for(was_asked_again)
        program.process.kill()
        lines = agent.finish()
    first, *later = of(lines, STUCK)
    assert seconds_after_attach(first, lines) < SOON_S
    for line in of(lines, STUCK) + of(lines, "lookup"):
        check_earlier(line)
        assert line["cause"]["id"] == "ns_silent"
        assert topology.SERVER_1 in line["cause"]["summary"]
    assert verdict(first) == ("ns_silent", "likely")
    assert {query["id"] for line in later for query in line["lookup"]["queries"]} == {
        query["id"] for query in first["lookup"]["queries"]
    }
    assert "attached_late" in [fact["fact"] for fact in first["cause"]["evidence"]]
    assert (first["lookup"]["name"], first["lookup"]["api"]) == (NAME, "getaddrinfo")  # from its stack
    assert {query["type"] for query in first["lookup"]["queries"]} == {"A", "AAAA"}
    for query in first["lookup"]["queries"]:
        assert query["server"] == {"address": topology.SERVER_1, "port": 53}
        assert (query["network"]["transport"], query["state"]) == ("udp", "waiting")
        assert (query["sent_ms"], query["attempt"]) == (None, None)
    assert {line["lookup"]["id"] for line in later} == {first["lookup"]["id"]}
    ended = only(lines, "lookup")["lookup"]
    assert (ended["id"], ended["status"], ended["name"]) == (first["lookup"]["id"], None, NAME)
    assert {question["type"] for question in ended["queries"]} == {"A", "AAAA"}
    assert lines[-1]["stats"]["lookups"]["end_unseen"] == 1


def test_a_stopped_program(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Whatever its server does: a program that is stopped reads no answer."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with stuck(sandbox, FAULTS["silent"], argv, options="timeout:9 attempts:2") as program:
        program.process.send_signal(signal.SIGSTOP)
        with Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            agent.finish()
    assert first["cause"]["id"] == "target_stopped"
    assert (first["lookup"]["since"], first["lookup"]["name"]) == ("before_attach", NAME)


def test_a_program_that_was_stopped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After it was stopped, or frozen, poll goes on under another name."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with stuck(sandbox, FAULTS["silent"], argv, options="timeout:9 attempts:2") as program:
        program.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(program.pid))
        program.process.send_signal(signal.SIGCONT)
        wait_until(sits_in(program.pid, "restart_syscall"))
        with Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            agent.finish()
    assert verdict(first) == ("ns_silent", "likely")
    assert first["lookup"]["name"] == NAME


@pytest.mark.parametrize("flavour", ["musl", "musl-static", "musl-stripped"])
def test_musl(sandbox: Sandbox, programs: dict[str, Path], flavour: str) -> None:
    """Its socket belongs to no server: servers and question are on its stack, which cannot be walked."""
    argv = [of_this_machine(programs, f"lookup-{flavour}"), "--name", NAME]
    held_up = stuck(sandbox, FAULTS["silent"], argv, options="timeout:8 attempts:2")
    with held_up as program, Agent("attach", "--pid", program.pid) as agent:
        lines = agent.finish()
    first = of(lines, STUCK)[0]
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("ns_silent", "likely")
    assert (first["lookup"]["name"], first["lookup"]["api"]) == (NAME, None)
    assert {query["server"]["address"] for query in first["lookup"]["queries"]} == {topology.SERVER_1}
    assert {query["type"] for query in first["lookup"]["queries"]} == {"A", "AAAA"}
    ended = only(lines, "lookup")["lookup"]
    assert {query["resent_ms"] is None for query in ended["queries"]} == {False}  # one lookup, asked again


def test_a_thread_that_goes_on_has_left_its_lookup(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """No probe sees the return of such a call; that its thread does something else is seen."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--linger"]
    with stuck(sandbox, FAULTS["silent"], argv) as program, Agent("attach", "--pid", program.pid) as agent:
        agent.wait_for(lambda line: line["event"] == "lookup")
        program.process.kill()
        lines = agent.finish()
    assert only(lines, "lookup")["lookup"]["status"] is None
    assert verdict(only(lines, "lookup"))[0] == "ns_silent"


def test_the_next_call_ends_it(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A call that begins shows that the earlier one is over, and is seen from its start."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--count", 2]
    with stuck(sandbox, FAULTS["silent"], argv) as program:
        with Agent("attach", "--pid", program.pid, "--all") as agent:
            lines = agent.finish()
        assert program.result()["failed"] == 2
    earlier, later = (line["lookup"] for line in of(lines, "lookup"))
    assert (earlier["since"], earlier["status"]) == ("before_attach", None)
    assert (later["since"], later["status"], later["error"]["type"]) == ("attach", "failed", "EAI_AGAIN")
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["started"], counts["failed"], counts["end_unseen"]) == (2, 1, 1)


def test_many_threads(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Each of a hundred and one threads is a lookup of its own, all told within two seconds."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--unique", "--threads", 101]
    many = stuck(sandbox, FAULTS["silent"], argv, count=101)
    with many as program, Agent("attach", "--pid", program.pid) as agent:
        first = agent.wait_for(is_stuck, 101)
        lines = agent.finish()
    assert len({line["lookup"]["id"] for line in first}) == 101
    assert len({line["thread"]["id"] for line in first}) == 101
    assert max(seconds_after_attach(line, lines) for line in first) < SOON_S
    assert {line["lookup"]["status"] for line in of(lines, "lookup")} == {None}
    assert len({line["lookup"]["name"] for line in of(lines, "lookup")} - {None}) >= snapshot.MAX_STACKS


@pytest.mark.parametrize("flavour", ["glibc", "musl-stripped"])
def test_short_lookups_are_not_stuck(sandbox: Sandbox, programs: dict[str, Path], flavour: str) -> None:
    """Of a thread that is in one lookup after the other, whenever one looks, nothing is said to be stuck."""
    argv = [of_this_machine(programs, f"lookup-{flavour}"), "--name", NAME, "--count", 61]
    quick = serving({**GOOD_ANSWER, "delay_ms": 37})
    with stuck(sandbox, quick, argv) as program, Agent("attach", "--pid", program.pid) as agent:
        lines = agent.finish()
    assert [line["message"] for line in of(lines, STUCK) + of(lines, "lookup")] == []


def test_tcp_that_is_silent(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Connected before, asked before: the server that sends no answer over TCP is named."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    connected = stuck(sandbox, serving(*SILENT_TCP), argv, "read")
    with connected as program, Agent("attach", "--pid", program.pid) as agent:
        (first,) = agent.wait_for(is_stuck)
        program.process.kill()
        lines = agent.finish()
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("tcp53_silent", "likely")
    assert first["lookup"]["queries"][0]["network"]["transport"] == "tcp"
    check_earlier(first)
    assert only(lines, "lookup")["lookup"]["status"] is None


@needs_nft
def test_tcp_that_is_blocked(programs: dict[str, Path]) -> None:
    """A thread in connect to port 53 is in a lookup; the SYN that is not answered is the cause."""
    chain = "add chain inet lab wall { type filter hook input priority 0; }"
    rules = f"add table inet lab; {chain}; add rule inet lab wall tcp dport 53 drop"
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with Sandbox() as sandbox:
        assert sandbox.popen(["nft", rules], stderr=subprocess.PIPE).wait() == 0
        blocked = stuck(sandbox, serving(CUT, GOOD_ANSWER), argv, "connect")
        with blocked as program, Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            lines = agent.finish()
    assert seconds_after_attach(first, lines) < SOON_S
    assert first["cause"]["id"] == "tcp53_blocked"
    assert first["lookup"]["waiting_on"]["syscall"] == "connect"
    assert first["lookup"]["queries"] == []  # it has no connection to ask on
    check_earlier(first)
