"""Go programs that hang before the agent comes: the lookup of a goroutine is found, followed, ended once."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from gotool import VERSIONS
from program import Program

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
SOON_S = 2.0  # the promise
DEADLINE_S = 30.0
ROUND_MS = 4000
FLAVOURS = [(version, stripped) for version in VERSIONS for stripped in (False, True)]


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for a fact that has no file."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def seconds_after_attach(line: Line, lines: list[Line]) -> float:
    """When the line was written, by its own clock."""
    attached = of(lines, "target", line["process"]["pid"])[0]
    began, told = (datetime.fromisoformat(one["ts"]) for one in (attached, line))
    return (told - began).total_seconds()


@pytest.fixture(scope="module")
def played(sandbox: Sandbox, go_program: Callable[..., Path]) -> dict[tuple[str, bool], list[Line]]:
    """A program of each flavour, stuck in the first of two rounds when one agent attaches to all of them."""
    programs = {flavour: go_program(version=flavour[0], stripped=flavour[1]) for flavour in FLAVOURS}
    with ExitStack() as stack:
        options = f"timeout:{ROUND_MS // 1000} attempts:2"
        running = stack.enter_context(FAULTS["silent"].setup(sandbox, options=options, log=True))
        started = {flavour: Program(sandbox, [path, "-name", NAME]) for flavour, path in programs.items()}
        for program in started.values():
            program.go()
        wait_until(lambda: len(running.queries()) == 2 * len(started))
        pids = {flavour: program.pid for flavour, program in started.items()}
        words = [word for pid in pids.values() for word in ("--pid", pid)]
        with Agent("attach", *words, "--stuck-after", "300ms") as agent:
            results = [program.result() for program in started.values()]
            lines = agent.finish()
        asked = [(query["name"].rstrip("."), query["type"], query["id"]) for query in running.queries()]
    assert [result["succeeded"] for result in results] == [0] * len(started)
    assert lines[-1]["stats"]["lookups"] | {"stuck": 0} == {
        **dict.fromkeys(lines[-1]["stats"]["lookups"], 0),
        "started": len(started),
        "failed": len(started),
    }
    told = {
        (query["name"].rstrip("."), query["type"], query["id"])
        for line in of(lines, "lookup")
        for query in line["lookup"]["queries"]
    }
    assert told == set(asked)  # of both rounds, none more
    return {flavour: [line for line in lines if _pid(line) == pid] for flavour, pid in pids.items()}


def _pid(line: Line) -> int | None:
    return line.get("process", {}).get("pid")


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: f"{flavour[0]}-{'stripped' * flavour[1]}")
def test_a_goroutine_is_told_of_within_two_seconds(flavour, played):
    """Name, both questions with their ids, server and cause are there, although all of it left unseen."""
    lines = played[flavour]
    first = of(lines, "lookup_stuck")[0]
    assert seconds_after_attach(first, lines) < SOON_S
    lookup = first["lookup"]
    assert (lookup["name"], lookup["api"], lookup["resolver"]) == (NAME, "go", "go")
    assert (lookup["since"], lookup["started"], lookup["elapsed_ms"]) == ("before_attach", None, None)
    assert lookup["goroutine"]["id"] == 1
    assert lookup["go_resolver"]["choice"] == "go"
    assert "CGO_ENABLED=0" in lookup["go_resolver"]["why"][0]
    assert lookup["open_for_at_least_ms"] < ROUND_MS
    assert {query["type"] for query in lookup["queries"]} == {"A", "AAAA"}
    for query in lookup["queries"]:
        assert query["server"] == {"address": topology.SERVER_1, "port": 53}
        assert (query["name"], query["state"], query["sent_ms"]) == (f"{NAME}.", "waiting", None)
    assert (first["cause"]["id"], first["cause"]["confidence"]) == ("ns_silent", "likely")
    waits = [line["lookup"]["waiting_on"] for line in of(lines, "lookup_stuck")]
    waited = next(wait["socket"] for wait in waits if wait)  # of four processes some are looked at later
    assert waited["server"] == {"address": topology.SERVER_1, "port": 53}
    assert waited["rx_queue_bytes"] == 0


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: f"{flavour[0]}-{'stripped' * flavour[1]}")
def test_it_ends_once_with_go_s_own_error(flavour, played):
    """What it asks in the second round joins it, and its return, which has a probe, ends it."""
    lines = played[flavour]
    ended = only(lines, "lookup")
    assert {line["lookup"]["id"] for line in of(lines, "lookup_stuck")} == {ended["lookup"]["id"]}
    assert (ended["lookup"]["status"], ended["lookup"]["since"]) == ("failed", "before_attach")
    assert ended["lookup"]["error"]["message"].endswith("i/o timeout")
    states = [(query["type"], query["state"]) for query in ended["lookup"]["queries"]]
    assert sorted(states) == [("A", "timed_out")] * 2 + [("AAAA", "timed_out")] * 2
    assert ended["cause"]["id"] == "ns_silent"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dial_that_hangs_is_found(version, go_program, sandbox):
    """A goroutine that dials is parked, and no thread sits in connect(): the socket tells."""
    fault = FAULTS["connect_after_dns"]
    with fault.setup(sandbox, options="timeout:1 attempts:1"):
        words = ["-name", NAME, "-way", "dial", "-connect", fault.connect_port]
        program = Program(sandbox, [go_program(version=version, stripped=True), *words])
        program.go()
        wait_until(lambda: syn_sent(program.pid))
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms") as agent:
            (first,) = agent.wait_for(lambda line: line["event"] == "connect_stuck")
            program.process.kill()
            lines = agent.finish()
    assert seconds_after_attach(first, lines) < SOON_S
    assert first["connect"]["server"] == {"address": topology.BLACK_HOLE, "port": fault.connect_port}
    assert (first["connect"]["since"], first["connect"]["tcp"]["state"]) == ("before_attach", "SYN_SENT")
    assert len(of(lines, "connect")) == 1
    assert of(lines, "lookup_stuck") == []


def syn_sent(pid: int) -> bool:
    """Whether a TCP socket of its network waits for the answer to its SYN: state 02."""
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return any(row.split()[3] == "02" for row in rows)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_cgo_waits_for_is_seen_once(version, go_program, sandbox):
    """The thread in getaddrinfo is the lookup; the goroutine that waits for it is not another one."""
    with FAULTS["silent"].setup(sandbox, options="timeout:9 attempts:1", log=True) as running:
        argv = [go_program(version=version, cgo=True), "-name", NAME]
        program = Program(sandbox, argv, env={**os.environ, "GODEBUG": "netdns=cgo"})
        program.go()
        wait_until(running.queries)
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms") as agent:
            (first,) = agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            program.process.kill()
            lines = agent.finish()
    assert (first["lookup"]["name"], first["lookup"]["api"]) == (NAME, "getaddrinfo")
    assert {line["lookup"]["id"] for line in of(lines, "lookup_stuck")} == {first["lookup"]["id"]}
    assert lines[-1]["stats"]["lookups"]["started"] == 1
    coverage = of(lines, "target")[0]["target"]["coverage"]
    assert (coverage["go"], coverage["go_resolver"]) == (f"go{version}", "cgo")
    assert "GODEBUG=netdns=cgo in its environment" in coverage["go_resolver_why"][0]
