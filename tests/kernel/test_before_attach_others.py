"""The same of local services, locks, real programs and connects that are stuck before; and recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, environment, of, only
from already_stuck import (
    NAME,
    SLOW,
    SOON_S,
    STUCK,
    check_earlier,
    is_stuck,
    needs_nft,
    seconds_after_attach,
    sits_in,
    stuck,
    verdict,
    wait_until,
)
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
]

#: what everybody has, with the words that `Program` puts behind it
REAL = {
    "Python": [sys.executable, "-c", "import socket; socket.getaddrinfo('www.lab.test', 80)"],
    "curl": ["curl", "-q", "-s", "http://www.lab.test/"],
    "getent": ["getent", "ahosts", "www.lab.test"],
    "dig": ["dig", "+time=5", "+tries=2", "www.lab.test"],
    "Node": ["node", "-e", "require('dns').resolve4('www.lab.test', () => {})"],
}
#: of those, programs whose resolver is their own
OWN = {"dig", "Node"}


def test_a_name_service_that_never_answers(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A thread that waits at the socket of a local name service is in a lookup that asks nobody else."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with (
        stuck(sandbox, FAULTS["nscd_stall"], argv) as program,
        Agent("attach", "--pid", program.pid) as agent,
    ):
        (first,) = agent.wait_for(is_stuck)
        program.process.kill()
        lines = agent.finish()
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert first["cause"]["id"] == "nscd_stall"
    assert first["lookup"]["queries"] == []
    assert only(lines, "lookup")["lookup"]["status"] is None


def test_a_lock_inside_the_resolver(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A thread that waits for another's gethostbyname is in a lookup too: only its stack tells."""
    words = ["--api", "gethostbyname", "--name", NAME, "--threads", 3]
    argv = [of_this_machine(programs, "lookup-glibc"), *words]
    locked = stuck(sandbox, FAULTS["silent"], argv, "futex", count=2)
    with locked as program, Agent("attach", "--pid", program.pid) as agent:
        first = agent.wait_for(is_stuck, 3)
        program.process.kill()
        agent.finish()
    assert {line["lookup"]["api"] for line in first} == {"gethostbyname"}
    assert sorted(line["cause"]["id"] for line in first) == [
        *["gethostbyname_serialized"] * 2,
        "ns_silent",
    ]


@pytest.mark.parametrize("name", REAL)
def test_real_programs(sandbox: Sandbox, name: str) -> None:
    """Whatever the program, and whichever of its threads looks up: server and cause within two seconds."""
    if shutil.which(REAL[name][0]) is None:
        pytest.skip(f"{REAL[name][0]} is not installed")
    with FAULTS["silent"].setup(sandbox, options=SLOW, log=True) as running:
        process = sandbox.popen(REAL[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(running.queries)
        with Agent("attach", "--pid", process.pid) as agent:
            agent.wait_for(is_stuck)
            process.kill()
            lines = agent.finish()
    first = of(lines, STUCK)[0]
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("ns_silent", "likely")
    expected = (None, "unknown") if name in OWN else ("getaddrinfo", "glibc")
    assert (first["lookup"]["api"], first["lookup"]["resolver"]) == expected
    assert [query["server"]["address"] for query in first["lookup"]["queries"]][:1] == [topology.SERVER_1]
    ended = [line["lookup"] for line in of(lines, "lookup")]
    assert [lookup["id"] for lookup in ended if lookup["since"] == "before_attach"] == [first["lookup"]["id"]]


@pytest.mark.parametrize(
    ("words", "call"), [("", "connect"), ("--non-blocking --wait", "poll")], ids=["blocking", "non-blocking"]
)
def test_a_connect_to_a_black_hole(
    sandbox: Sandbox, programs: dict[str, Path], words: str, call: str
) -> None:
    """Where it goes, and that its SYN has no answer, is told within two seconds; it is ended once."""
    argv = [of_this_machine(programs, "connector-glibc"), "--address", topology.BLACK_HOLE, *words.split()]
    program = Program(sandbox, argv)
    program.go()
    wait_until(sits_in(program.pid, call))
    with Agent("attach", "--pid", program.pid) as agent:
        (first,) = agent.wait_for(lambda line: line["event"] == "connect_stuck")
        program.process.kill()
        lines = agent.finish()
    connect = first["connect"]
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("connect_after_dns", "possible")
    assert connect["server"] == {"address": topology.BLACK_HOLE, "port": 80}
    assert (connect["since"], connect["elapsed_ms"], connect["lookup"]) == ("before_attach", None, None)
    assert connect["tcp"]["state"] == "SYN_SENT"
    ended = only(lines, "connect")["connect"]
    assert ended["id"] == connect["id"]
    assert ended["status"] is None
    assert ("thread" in first) == (call == "connect")


@needs_nft
def test_a_connect_that_comes_up(programs: dict[str, Path]) -> None:
    """A blocking connect that began before is ended by its own return: how, is known; since when, is not."""
    chain = "add chain inet lab wall { type filter hook input priority 0; }"
    rules = f"add table inet lab; {chain}; add rule inet lab wall tcp dport 53 drop"
    argv = [of_this_machine(programs, "connector-glibc"), "--address", topology.SERVER_1, "--port", 53]
    with Sandbox() as sandbox, FAULTS["healthy"].setup(sandbox):
        assert sandbox.popen(["nft", rules], stderr=subprocess.PIPE).wait() == 0
        program = Program(sandbox, argv)
        program.go()
        wait_until(sits_in(program.pid, "connect"))
        with Agent("attach", "--pid", program.pid) as agent:
            agent.wait_for(lambda line: line["event"] == "connect_stuck")
            assert sandbox.popen(["nft", "flush ruleset"], stderr=subprocess.PIPE).wait() == 0
            lines = agent.finish()
    (connect,) = (line["connect"] for line in of(lines, "connect"))
    assert (connect["status"], connect["since"], connect["duration_ms"]) == ("ok", "before_attach", None)
    assert lines[-1]["stats"]["connects"]["ok"] == 1


def test_a_recording_replays_the_same(sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path) -> None:
    """What was found by looking is in the recording: it says the same again, byte for byte."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    recording = tmp_path / "earlier.rec"
    repeated = stuck(sandbox, FAULTS["silent"], argv, options="timeout:1 attempts:3")
    with repeated as program, Agent("attach", "--pid", program.pid, "--record", recording) as agent:
        agent.finish()
    words = [sys.executable, "-P", "-m", "ebpfdns", "replay", str(recording)]
    assert subprocess.check_output(words, env=environment()) == agent.text
