"""Programs that everybody has, each stuck on purpose: told while it waits, rightly, and ended once."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from agent import Agent, of
from program import shell

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
AT_ONCE = 2
GETADDRINFO = "import socket; socket.getaddrinfo('www.lab.test', 80)"
ASYNCIO = """
import asyncio
async def main():
    await asyncio.get_running_loop().getaddrinfo('www.lab.test', 80)
asyncio.run(main())
"""
POOL = """
import socket
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(3) as pool:
    found = [pool.submit(socket.getaddrinfo, 'www.lab.test', 80) for _ in range(3)]
[one.result() for one in found]
"""


class Real(NamedTuple):
    """A program: what to type, and how its lookup is known."""

    argv: tuple[str, ...]
    api: str = "getaddrinfo"
    lookups: int = 1
    asks_both: bool = True  # A and AAAA


PROGRAMS = {
    "getent": Real(("getent", "ahosts", NAME)),
    "curl, threaded resolver": Real(("curl", "-q", "-s", f"http://{NAME}/")),
    "Python socket": Real((sys.executable, "-c", GETADDRINFO)),
    "Python asyncio": Real((sys.executable, "-c", ASYNCIO)),
    "Python thread pool": Real((sys.executable, "-c", POOL), lookups=3),
    "Node dns.lookup": Real(("node", "-e", f"require('dns').lookup('{NAME}', () => {{}})")),
    "Node dns.resolve": Real(
        ("node", "-e", f"require('dns').resolve4('{NAME}', () => {{}})"), api="wire", asks_both=False
    ),
    "dig": Real(("dig", "+time=2", "+tries=1", NAME), api="wire", asks_both=False),
}


def play(name: str, fault: str, *words: str) -> list[Line]:
    """All lines about the program; of one that would wait for long, up to its second stuck line."""
    real = PROGRAMS[name]
    if shutil.which(real.argv[0]) is None:
        return []
    with Sandbox() as sandbox, FAULTS[fault].setup(sandbox, options="timeout:2 attempts:1"):
        target = shell(sandbox, 'shift 4; exec "$@"', tail=real.argv)
        with Agent("attach", "--pid", target.pid, "--stuck-after", "500ms", *words) as agent:
            target.go()
            if fault == "silent":
                agent.wait_for(lambda line: line["event"] == "lookup_stuck", 2 * real.lookups)
                target.process.kill()
            return agent.finish()


@pytest.fixture(scope="module")
def played() -> Iterator[dict[tuple[str, str], Future[list[Line]]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        stuck = {(name, "silent"): pool.submit(play, name, "silent") for name in PROGRAMS}
        well = {(name, "healthy"): pool.submit(play, name, "healthy", "--all") for name in PROGRAMS}
        yield stuck | well


def lines_of(
    played: dict[tuple[str, str], Future[list[Line]]], name: str, fault: str
) -> tuple[Real, list[Line]]:
    lines = played[name, fault].result()
    if not lines:
        pytest.skip(f"{PROGRAMS[name].argv[0]} is not installed")
    return PROGRAMS[name], lines


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_silent_server(played: dict[tuple[str, str], Future[list[Line]]], name: str) -> None:
    """The program waits for a silent server; the agent names server and question while it does."""
    real, lines = lines_of(played, name, "silent")
    stuck = of(lines, "lookup_stuck")
    ids = {line["lookup"]["id"] for line in stuck}
    assert len(ids) == real.lookups
    for line in stuck:
        lookup, cause = line["lookup"], line["cause"]
        assert (lookup["name"], lookup["api"]) == (NAME, real.api)
        assert lookup["resolver"] == ("unknown" if real.api == "wire" else "glibc")
        assert {query["server"]["address"] for query in lookup["queries"]} == {topology.SERVER_1}
        assert {query["type"] for query in lookup["queries"]} == ({"A", "AAAA"} if real.asks_both else {"A"})
        assert {query["state"] for query in lookup["queries"]} <= {"waiting", "timed_out"}
        assert cause["id"] == "ns_silent"
        assert "no_reply" in {fact["fact"] for fact in cause["evidence"]}
    second = [line["cause"]["confidence"] for line in stuck if line["lookup"]["update"] == 2]
    assert set(second) <= {"confirmed", "likely"}
    assert sorted(line["lookup"]["id"] for line in of(lines, "lookup")) == sorted(ids)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_healthy_server(played: dict[tuple[str, str], Future[list[Line]]], name: str) -> None:
    """With a server that answers the same program is told as healthy, without a cause."""
    real, lines = lines_of(played, name, "healthy")
    # dig first asks libc what the address of its server is.
    lookups = [line for line in of(lines, "lookup") if line["lookup"]["name"] != topology.SERVER_1]
    assert len(lookups) == real.lookups
    for line in lookups:
        assert (line["lookup"]["name"], line["lookup"]["api"]) == (NAME, real.api)
        assert line["lookup"]["status"] == "ok"
        assert "cause" not in line
    assert of(lines, "lookup_stuck") == []
