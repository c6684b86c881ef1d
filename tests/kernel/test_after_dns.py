"""After DNS: black holes that only IPv6 has, TLS that gets no answer, and connects that are no traffic."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from curl import Curl, needs_curl
from play import SOON
from program import Program

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, WEB_PORT, Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
#: Waits for its go, resolves, connects to each of the addresses in the order of the words "4" and "6".
CONNECTS = """
import json, os, select, socket, sys
ready, go, *families = sys.argv[1:]
open(ready, "w").close()
nothing = select.poll()
while not os.path.exists(go):
    nothing.poll(2)
found = socket.getaddrinfo("www.lab.test", 443, type=socket.SOCK_STREAM)
done = []
for family in families:
    wanted = socket.AF_INET6 if family == "6" else socket.AF_INET
    address = next(entry[4] for entry in found if entry[0] == wanted)
    stream = socket.socket(wanted, socket.SOCK_STREAM)
    stream.connect(address)
    done.append(stream)
print(json.dumps({"connected": len(done)}))
"""


def verdict(line: Line) -> tuple[str, str]:
    """What a line says the cause is, and how sure."""
    return line["cause"]["id"], line["cause"]["confidence"]


def stuck_connects(agent: Agent, updates: int, count: int = 1) -> list[Line]:
    """The stuck lines up to this update of so many connects."""
    agent.wait_for(
        lambda line: line["event"] == "connect_stuck" and line["connect"]["update"] == updates, count
    )
    return of(agent.lines, "connect_stuck")


def play_script(sandbox: Sandbox, fault: Fault, families: str, updates: int) -> list[Line]:
    """All lines about a program that connects over these families, the last of which hangs."""
    folder = sandbox.new_file("script")
    ready, go = sandbox.new_file("ready"), sandbox.new_file("go")
    folder.write_text(CONNECTS)
    with fault.setup(sandbox):
        argv = [sys.executable, "-I", str(folder), str(ready), str(go), *families]
        process = sandbox.popen(argv, ready_file=ready)
        with Agent("attach", "--pid", process.pid, "--stuck-after", SOON, "--all") as agent:
            go.touch()
            stuck_connects(agent, updates)
            process.kill()
            return agent.finish()


def test_ipv6_goes_nowhere_and_ipv4_works(sandbox: Sandbox) -> None:
    """That the process has reached an IPv4 address of the same name makes it sure that IPv6 is to blame."""
    lines = play_script(sandbox, FAULTS["ipv6_first_blackholed"], "46", 4)
    stuck = of(lines, "connect_stuck")
    assert {line["connect"]["server"]["address"] for line in stuck} == {topology.BLACK_HOLE_V6}
    assert verdict(stuck[0]) == ("connect_after_dns", "likely")
    assert verdict(stuck[-1]) == ("ipv6_first_blackholed", "confirmed")
    syn, beside = stuck[-1]["cause"]["evidence"]
    assert (syn["fact"], syn["retransmits"] >= 1) == ("syn_retransmitted", True)
    assert (beside["fact"], beside["address"]) == ("ipv4_connected", topology.WEB)
    assert stuck[-1]["connect"]["lookup"]["name"] == NAME


def test_ipv6_goes_nowhere_and_ipv4_was_not_tried(sandbox: Sandbox) -> None:
    """That the lookup gave an IPv4 address makes it likely only."""
    stuck = of(play_script(sandbox, FAULTS["ipv6_first_blackholed"], "6", 4), "connect_stuck")
    assert verdict(stuck[-1]) == ("ipv6_first_blackholed", "likely")
    evidence = stuck[-1]["cause"]["evidence"]
    assert [fact["fact"] for fact in evidence] == ["syn_retransmitted", "ipv4_not_tried"]


@needs_curl
def test_both_families_go_nowhere(sandbox: Sandbox) -> None:
    """When IPv4 hangs as well (curl tries it after 200 ms), IPv6 is not to blame."""
    script = {"answer": [topology.BLACK_HOLE, topology.BLACK_HOLE_V6]}
    fault = Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), (script,)),))
    with fault.setup(sandbox):
        target = Curl(sandbox)
        with Agent("attach", "--pid", target.pid, "--stuck-after", SOON, "--all") as agent:
            target.go(f"http://{NAME}/")
            stuck_connects(agent, 4, count=2)
            target.process.kill()
            lines = agent.finish()
    last = {line["connect"]["server"]["address"]: line for line in of(lines, "connect_stuck")}
    assert set(last) == {topology.BLACK_HOLE, topology.BLACK_HOLE_V6}
    for line in last.values():
        assert verdict(line) == ("connect_after_dns", "confirmed")


@needs_curl
def test_tls_gets_no_answer(sandbox: Sandbox) -> None:
    """That a server takes curl's connection and says nothing is told while it waits, and ended once."""
    with FAULTS["tls_stall"].setup(sandbox):
        target = Curl(sandbox)
        with Agent("attach", "--pid", target.pid, "--stuck-after", SOON, "--all") as agent:
            target.go(f"https://{NAME}/")
            stuck = stuck_connects(agent, 3)
            target.process.kill()
            lines = agent.finish()
    assert [line["cause"]["confidence"] for line in stuck] == ["likely", "likely", "confirmed"]
    for line in stuck:
        assert line["cause"]["id"] == "tls_stall"
        assert line["connect"]["phase"] == "tls"
        assert line["connect"]["tcp"] == {"state": "ESTABLISHED", "retransmits": 0}
        assert line["connect"]["lookup"]["name"] == NAME
        assert line["connect"]["server"] == {"address": topology.WEB, "port": WEB_PORT}
        hello, queue = line["cause"]["evidence"]
        assert (hello["fact"], queue["fact"]) == ("tls_hello_unanswered", "tx_queue_acked")
    made, handshake = of(lines, "connect")
    assert ("phase" in made["connect"], made["connect"]["status"]) == (False, "ok")
    assert (handshake["connect"]["phase"], handshake["connect"]["status"]) == ("tls", "abandoned")
    assert handshake["connect"]["id"] == stuck[0]["connect"]["id"]
    assert handshake["cause"]["id"] == "tls_stall"


@needs_curl
def test_a_silent_server_without_tls_is_no_tls_stall(sandbox: Sandbox) -> None:
    """A client that speaks plain HTTP to a silent server has a connection, and no handshake."""
    with FAULTS["tls_stall"].setup(sandbox):
        target = Curl(sandbox, "-m", "2")
        with Agent("attach", "--pid", target.pid, "--stuck-after", SOON, "--all") as agent:
            target.go(f"http://{NAME}:{WEB_PORT}/")
            lines = agent.finish()
    assert of(lines, "connect_stuck") == []
    assert only(lines, "connect")["connect"]["status"] == "ok"


def test_sorting_addresses_is_no_traffic(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The UDP sockets that getaddrinfo connects to sort its addresses are neither told of nor counted."""
    with FAULTS["healthy"].setup(sandbox):
        paths = {libc: programs[f"lookup-{libc}"] for libc in ("glibc", "musl")}
        names = {libc: Program(sandbox, [path, "--name", NAME]) for libc, path in paths.items()}
        pids = [word for program in names.values() for word in ("--pid", program.pid)]
        with Agent("attach", *pids, "--all") as agent:
            for program in names.values():
                program.go()
            lines = agent.finish()
    assert len(of(lines, "lookup")) == len(names)
    assert of(lines, "connect") == []
    assert lines[-1]["stats"]["connects"]["started"] == 0
