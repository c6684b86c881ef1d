"""Connects: followed to their end however they are made, counted exactly, joined to their lookup."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
from agent import Agent, of, only
from play import SOON, Played, play
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

HOLE, HOLE_V6, WEB = topology.BLACK_HOLE, topology.BLACK_HOLE_V6, topology.WEB
LISTENING = f"--address {topology.SERVER_1} --port 53"
FOLLOWED = "--non-blocking --wait"


class Way(NamedTuple):
    """How it connects, how often, and what is to be said of each."""

    words: str
    times: int
    status: str
    error: str | None = None
    transport: str = "tcp"
    stuck: bool = False
    state: str | None = None


WAYS = {
    "ok": Way(LISTENING, 5, "ok", state="ESTABLISHED"),
    "ok, not waited for by connect": Way(f"{LISTENING} {FOLLOWED}", 7, "ok", state="ESTABLISHED"),
    "refused": Way(f"--address {WEB} --parallel", 13, "failed", "ECONNREFUSED", state="CLOSE"),
    "refused, followed": Way(f"--address {WEB} {FOLLOWED}", 11, "failed", "ECONNREFUSED", state="CLOSE"),
    "refused over IPv6": Way(f"--address {topology.WEB_V6} {FOLLOWED}", 3, "failed", "ECONNREFUSED"),
    "no route": Way(f"--address {topology.NO_ROUTE}", 3, "failed", "ENETUNREACH"),
    "closed midway": Way(
        f"--address {HOLE} --non-blocking --close-after-ms 100", 3, "abandoned", state="SYN_SENT"
    ),
    "closed at once": Way(f"--address {HOLE} --non-blocking", 17, "abandoned", state="SYN_SENT"),
    "black hole": Way(f"--address {HOLE} {FOLLOWED} --timeout-ms 700", 1, "abandoned", stuck=True),
    "black hole over IPv6": Way(
        f"--address {HOLE_V6} {FOLLOWED} --timeout-ms 700", 1, "abandoned", stuck=True
    ),
    "no such path": Way("--unix /no/such", 3, "failed", "ENOENT", "unix"),
    "no such abstract name": Way("--unix @no-such", 5, "failed", "ECONNREFUSED", "unix"),
    "UDP": Way(f"--udp --address {WEB} --port 9", 19, "ok", transport="udp"),
    "UDP without a route": Way(f"--udp --address {topology.NO_ROUTE}", 2, "failed", "ENETUNREACH", "udp"),
}


@pytest.fixture(scope="module")
def told(programs: dict[str, Path]) -> Played:
    connector = of_this_machine(programs, "connector-glibc")
    argvs = {name: [connector, *way.words.split(), "--count", way.times] for name, way in WAYS.items()}
    return play(FAULTS["healthy"], argvs, "--all")


@pytest.mark.parametrize("name", WAYS)
def test_a_connect_ends_as_the_program_saw_it(told: Played, name: str) -> None:
    """Each connect has its line with its end, its error and where it went, however it was waited for."""
    way = WAYS[name]
    lines = told.of("connect", name)
    assert len(lines) == way.times
    for line in lines:
        connect = line["connect"]
        assert connect["status"] == way.status
        assert connect.get("error") == (way.error and {"type": way.error})
        assert connect["network"]["transport"] == way.transport
        assert connect["purpose"] == ("dns" if "--port 53" in way.words else "application")
        assert connect["lookup"] is None
        assert way.state in {None, (connect["tcp"] or {}).get("state")}
        words = way.words.split()
        if way.transport == "unix":
            assert (connect["server"], connect["path"]) == (None, words[1])
        else:
            port = int(words[words.index("--port") + 1]) if "--port" in words else 80
            assert connect["server"] == {"address": words[words.index("--address") + 1], "port": port}
            family = "ipv6" if ":" in connect["server"]["address"] else "ipv4"
            assert connect["network"]["type"] == family


@pytest.mark.parametrize("name", WAYS)
def test_only_a_connect_that_waits_is_stuck(told: Played, name: str) -> None:
    """A connect into a black hole is told while it lasts; without a lookup its cause is only possible."""
    lines = told.of("connect_stuck", name)
    assert [line["connect"]["update"] for line in lines] == ([1, 2] if WAYS[name].stuck else [])
    for line in lines:
        assert line["connect"]["tcp"]["state"] == "SYN_SENT"
        assert (line["cause"]["id"], line["cause"]["confidence"]) == ("connect_after_dns", "possible")
        assert [fact["fact"] for fact in line["cause"]["evidence"]] == ["syn_retransmitted"]


def test_connects_are_counted_exactly(told: Played) -> None:
    """The counters are the sum of what all the programs did."""

    def total(status: str) -> int:
        return sum(way.times for way in WAYS.values() if way.status == status)

    assert told.stats["connects"] == {
        "started": sum(way.times for way in WAYS.values()),
        "ok": total("ok"),
        "failed": total("failed"),
        "abandoned": total("abandoned"),
        "stuck": sum(way.stuck for way in WAYS.values()),
        "in_flight": 0,
    }
    assert told.stats["latency_ms"]["connect"]["count"] == told.stats["connects"]["started"]
    assert told.stats["lookups"]["started"] == 0
    assert told.stats["lost"] == {}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_after_dns(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """A connect to an address of a finished lookup is joined to it, and repeated SYNs make the cause sure."""
    fault = FAULTS["connect_after_dns"]
    program = of_this_machine(programs, f"lookup-{libc}")
    with fault.setup(sandbox):
        target = Program(sandbox, [program, "--name", "www.lab.test", "--connect", fault.connect_port])
        with Agent("attach", "--pid", target.pid, "--stuck-after", SOON, "--all") as agent:
            target.go()
            agent.wait_for(lambda line: line["event"] == "connect_stuck" and line["connect"]["update"] == 3)
            target.process.kill()
            lines = agent.finish()
    lookup = only(lines, "lookup")["lookup"]
    assert (lookup["status"], lookup["addresses"]) == ("ok", [topology.BLACK_HOLE])
    stuck = of(lines, "connect_stuck")
    for line in [*stuck, only(lines, "connect")]:
        assert line["connect"]["lookup"] == {"id": lookup["id"], "name": "www.lab.test"}
        assert line["connect"]["server"] == {"address": topology.BLACK_HOLE, "port": fault.connect_port}
        assert line["connect"]["network"] == {"transport": "tcp", "type": "ipv4"}
    assert {line["cause"]["id"] for line in stuck} == {"connect_after_dns"}
    assert [line["cause"]["confidence"] for line in stuck][::2] == ["likely", "confirmed"]
    resent = [line["connect"]["tcp"]["retransmits"] for line in stuck]
    assert resent == sorted(resent)
    assert resent[0] == 0 < resent[-1]
    assert [fact["fact"] for fact in stuck[-1]["cause"]["evidence"]] == ["syn_retransmitted", "reply_seen"]
    assert only(lines, "connect")["connect"]["status"] == "abandoned"


def test_a_connect_without_its_lookups_line(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A healthy lookup has no line without --all, and yet the connect to its address names it."""
    fault = FAULTS["connect_after_dns"]
    program = of_this_machine(programs, "lookup-glibc")
    with fault.setup(sandbox):
        target = Program(sandbox, [program, "--name", "www.lab.test", "--connect", fault.connect_port])
        with Agent("attach", "--pid", target.pid, "--stuck-after", SOON) as agent:
            target.go()
            (stuck,) = agent.wait_for(lambda line: line["event"] == "connect_stuck")
            lines = agent.stop()
    assert of(lines, "lookup") == []
    assert stuck["connect"]["lookup"]["name"] == "www.lab.test"
    assert lines[-1]["stats"]["connects"]["in_flight"] == 1


def test_another_name_for_the_same_address(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A connect is joined to the lookup of its own process that gave its address last."""
    fault = FAULTS["connect_after_dns"]
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "lab.test", "--unique", "--threads", 1]
    with fault.setup(sandbox):
        other = Program(sandbox, [programs["lookup-glibc"], "--name", "other.test"])
        target = Program(sandbox, [*argv, "--connect", fault.connect_port])
        words = ["--pid", target.pid, "--pid", other.pid, "--stuck-after", SOON, "--all"]
        with Agent("attach", *words) as agent:
            target.go()
            agent.wait_for(lambda line: line["event"] == "lookup")
            other.go()
            (stuck,) = agent.wait_for(lambda line: line["event"] == "connect_stuck")
            agent.stop()
    assert stuck["connect"]["lookup"]["name"] == "t0-0.lab.test"
