"""Local daemons that are stuck, from their clients' side: sure when the daemon is seen to be, not before.

Clients are the real ones: glibc's for nscd, Debian's nss modules for systemd-resolved and Avahi.
"""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from packages import library_path, unpacked
from play import SHORT, SOON, again, whole
from program import Program, of_this_machine

from ebpfdns.lab import local_faults
from ebpfdns.lab.fault import Fault, ServerPlan, StuckDaemon
from ebpfdns.lab.faults import GOOD_ANSWER
from ebpfdns.lab.local_faults import AVAHI, NSCD, RESOLVE, STUB, nsswitch
from ebpfdns.lab.namespace import plain_environment
from ebpfdns.lab.topology import SERVER_1

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME, ON_LINK = "www.lab.test", "printer.local"
GOOD = ServerPlan((SERVER_1,), (GOOD_ANSWER,))
LATER = 3  # the third report: after 1.2 s, when a second has passed
MODULES = {"resolve": "libnss-resolve", "mdns4_minimal": "libnss-mdns"}
STUCK = {
    "nscd": ("nscd_stall", NSCD, "files dns", NAME),
    "resolve": ("resolved_ipc_stall", RESOLVE, "files resolve [!UNAVAIL=return] dns", NAME),
    "mdns4_minimal": ("avahi_stall", AVAHI, "files mdns4_minimal [NOTFOUND=return] dns", ON_LINK),
}
#: how it is stuck → what proves it
PROOFS = {"deaf": {"listener_backlog_full", "peer_rx_queue_not_empty"}, "numb": {"peer_rx_queue_not_empty"}}


def is_update(number: int) -> Callable[[Line], bool]:
    return lambda line: line["event"] == "lookup_stuck" and line["lookup"]["update"] == number


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def facts(line: Line) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


@pytest.fixture
def client(sandbox: Sandbox, programs: dict[str, Path]) -> Callable[[str], Program]:
    """Starts a program that looks up a name by the source `nscd`, `resolve` or `mdns4_minimal`."""

    def start(source: str) -> Program:
        _, _, hosts, name = STUCK[source]
        (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch(hosts))
        environment = plain_environment()
        if source in MODULES:
            environment["LD_LIBRARY_PATH"] = library_path(unpacked(MODULES[source]))
        return Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", name], env=environment)

    return start


def daemon(source: str, *words: str) -> Fault:
    """The daemon behind this source, stuck in some way; the DNS server is well."""
    path = STUCK[source][1]
    return Fault("own", "The test's own.", servers=(StuckDaemon(("--unix", path, *words)), GOOD))


def reported(program: Program, number: int = LATER) -> Line:
    """What is said of its lookup at this report; the program is killed then."""
    with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
        program.go()
        (line,) = agent.wait_for(is_update(number))
        program.process.kill()
        lines = whole(agent.finish())
    assert {said["cause"]["id"] for said in of(lines, "lookup_stuck")} <= {
        line["cause"]["id"],
        "mdns_timeout",
    }
    return line


@pytest.mark.parametrize("way", PROOFS)
@pytest.mark.parametrize("source", STUCK)
@again
def test_stuck(sandbox: Sandbox, client: Callable[[str], Program], source: str, way: str) -> None:
    """A daemon that does not accept, or does not read, is the cause for sure, with that as evidence."""
    with daemon(source, "--way", way).setup(sandbox, options=SHORT):
        line = reported(client(source))
    assert verdict(line) == (STUCK[source][0], "confirmed")
    assert facts(line)[0] == "unix_peer_waited_for"
    assert PROOFS[way] & set(facts(line))
    # nss-mdns asks DNS for its own `local` before; nobody asks it for the name.
    assert {query["name"] for query in line["lookup"]["queries"]} <= {"local."}


@pytest.mark.parametrize("source", STUCK)
@again
def test_stopped(sandbox: Sandbox, client: Callable[[str], Program], source: str) -> None:
    """A daemon that is stopped is named with its pid, and how to let it go on."""
    with daemon(source, "--way", "mute").setup(sandbox, options=SHORT) as running:
        server = running.servers[0]
        server.send_signal(signal.SIGSTOP)
        line = reported(client(source))
    assert verdict(line) == (STUCK[source][0], "confirmed")
    assert "peer_stopped" in facts(line)
    assert f"kill -CONT {server.pid}" in line["cause"]["remedy"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nscd", ("nscd_stall", "likely")),
        ("resolve", ("resolved_ipc_stall", "likely")),
        ("mdns4_minimal", ("mdns_timeout", "possible")),
    ],
)
@again
def test_perhaps_at_work(
    sandbox: Sandbox, client: Callable[[str], Program], source: str, expected: tuple[str, str]
) -> None:
    """A daemon that has read the question and sleeps may be at work: that it is stuck is never sure."""
    with daemon(source, "--way", "mute").setup(sandbox, options=SHORT):
        line = reported(client(source))
    assert verdict(line) == expected
    assert not {"peer_stopped", "listener_backlog_full", "peer_rx_queue_not_empty"} & set(facts(line))


@again
def test_nobody_on_the_link(sandbox: Sandbox, client: Callable[[str], Program]) -> None:
    """A name that Avahi gives up after 5 s was waited out, and Avahi is not blamed at any time."""
    with daemon("mdns4_minimal", "--way", "mute", *local_faults.AVAHI_GIVES_UP).setup(sandbox, options=SHORT):
        program = client("mdns4_minimal")
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = whole(agent.finish())
    ended = only(lines, "lookup")
    assert ended["lookup"]["status"] == "failed"
    assert verdict(ended) == ("mdns_timeout", "likely")
    assert {line["cause"]["id"] for line in of(lines, "lookup_stuck")} == {"mdns_timeout"}


def stub(*words: str) -> Fault:
    return Fault("own", "The test's own.", (STUB,), (StuckDaemon(("--udp", STUB, *words)),))


@again
def test_stub_does_not_read(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Questions that lie unread in the stub's socket prove it stuck."""
    with stub().setup(sandbox, options="timeout:3 attempts:1"):
        line = reported(Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME]))
    assert verdict(line) == ("resolved_stub_silent", "confirmed")
    assert facts(line) == ["no_reply", "peer_rx_queue_not_empty"]


@again
def test_stub_at_work(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A stub that reads its questions and is silent may be at work: it is the likely cause, no more."""
    silent = Fault("own", "The test's own.", (STUB,), (ServerPlan((STUB,), ({"drop": True},)),))
    with silent.setup(sandbox, options="timeout:3 attempts:1"):
        line = reported(Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME]))
    assert verdict(line) == ("resolved_stub_silent", "likely")


@pytest.mark.parametrize("source", STUCK)
@again
def test_already_stuck(sandbox: Sandbox, client: Callable[[str], Program], source: str) -> None:
    """A lookup that waited at the daemon before tracing began is told of within 2 s, with its cause."""
    with daemon(source, "--way", "deaf").setup(sandbox, options=SHORT):
        program = client(source)
        program.go()
        while not waits_at(sandbox, STUCK[source][1]):
            time.sleep(0.002)
        with Agent("attach", "--pid", program.pid) as agent:
            (line,) = agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            (later,) = agent.wait_for(lambda line: line.get("cause", {}).get("confidence") == "confirmed")
            program.process.kill()
            lines = whole(agent.finish())
    began, told = (datetime.fromisoformat(one["ts"]) for one in (of(lines, "target")[0], line))
    assert (told - began).total_seconds() < 2
    assert line["lookup"]["since"] == "before_attach"
    assert line["lookup"]["name"] is None
    assert {line["cause"]["id"], later["cause"]["id"]} == {STUCK[source][0]}
    assert PROOFS["deaf"] & set(facts(line))


def waits_at(sandbox: Sandbox, path: str) -> bool:
    """Whether somebody is connected there, beside the listener itself."""
    table = Path(f"/proc/{sandbox.holder_pid}/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {path}") for line in table) > 1
