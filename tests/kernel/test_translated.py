"""Servers whose address is translated on the way, as by Docker: what counts is whom the program asks."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from play import SOON, again, whole
from program import Program, of_this_machine

from ebpfdns.lab.fault import Fault, ServerPlan, StuckDaemon
from ebpfdns.lab.faults import GOOD_ANSWER
from ebpfdns.lab.namespace import Sandbox
from ebpfdns.lab.topology import NEAR, SERVER_1

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

CLUSTER, DOCKER, DOCKER_PORT = "10.96.0.10", "127.0.0.11", 53_053
ANSWERS = {"good": (GOOD_ANSWER,), "silent": ({"drop": True},)}
RULES = (
    "add table ip lab; add chain ip lab out {{ type nat hook output priority -100; }}; add rule ip lab out {}"
)
TO_SERVER = f"ip daddr {CLUSTER} udp dport 53 dnat to {SERVER_1}"
TO_PORT = f"ip daddr {DOCKER} udp dport 53 dnat to {DOCKER}:{DOCKER_PORT}"


@pytest.fixture
def translated() -> Iterator[Sandbox]:
    """What goes to the cluster's address arrives at a server here; Docker's is at another port."""
    with Sandbox() as sandbox:
        sandbox.configure(lambda network: network.add_route(f"{CLUSTER}/32", link=NEAR))
        for rule in (TO_SERVER, TO_PORT):
            nft = sandbox.popen(["nft", RULES.format(rule)], stderr=subprocess.PIPE, text=True)
            errors = nft.communicate()[1]
            if nft.returncode:
                pytest.skip(f"this kernel translates no addresses: {errors}")
        yield sandbox


def looked_up(sandbox: Sandbox, program: Path, nameserver: str, *servers: object) -> list[Line]:
    """The lines about one lookup of a program whose resolv.conf names this server."""
    fault = Fault("translated", "An address is translated.", (nameserver,), servers)  # type: ignore[arg-type]
    with fault.setup(sandbox, options="timeout:1 attempts:1"):
        target = Program(sandbox, [program, "--name", "www.lab.test"])
        with Agent("attach", "--pid", target.pid, "--all", "--stuck-after", SOON) as agent:
            target.go()
            return whole(agent.finish())


def asked(line: Line) -> set[tuple[str, str]]:
    return {(query["server"]["address"], query["state"]) for query in line["lookup"]["queries"]}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@again
def test_an_answer_is_the_servers_that_was_asked(
    translated: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """By a connected socket or not: question and answer are the cluster's address' own."""
    plan = ServerPlan((SERVER_1,), ANSWERS["good"])
    lines = looked_up(translated, of_this_machine(programs, f"lookup-{libc}"), CLUSTER, plan)
    ended = only(lines, "lookup")
    assert (ended["lookup"]["status"], ended.get("cause")) == ("ok", None)
    assert asked(ended) == {(CLUSTER, "answered")}
    assert lines[-1]["stats"]["queries"] == {"sent": 2, "answered": 2, "unanswered": 0}


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@again
def test_a_silent_server_is_named_as_it_was_asked(
    translated: Sandbox, programs: dict[str, Path], libc: str
) -> None:
    """People know the address of their resolv.conf, not the one behind it."""
    plan = ServerPlan((SERVER_1,), ANSWERS["silent"])
    lines = looked_up(translated, of_this_machine(programs, f"lookup-{libc}"), CLUSTER, plan)
    for line in (*of(lines, "lookup_stuck"), only(lines, "lookup")):
        assert line["cause"]["id"] == "ns_silent"
        assert CLUSTER in line["cause"]["summary"]
        assert {address for address, _ in asked(line)} == {CLUSTER}


@again
def test_a_translated_port(translated: Sandbox, programs: dict[str, Path]) -> None:
    """Docker's server is asked at port 53 and listens at another one: its questions are seen all the same."""
    daemon = StuckDaemon(("--udp", DOCKER, "--port", str(DOCKER_PORT)))
    lines = looked_up(translated, of_this_machine(programs, "lookup-glibc"), DOCKER, daemon)
    stuck = of(lines, "lookup_stuck")[0]
    assert asked(stuck) == {(DOCKER, "waiting")}
    assert {query["server"]["port"] for query in stuck["lookup"]["queries"]} == {53}
