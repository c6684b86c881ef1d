"""Debian's nscd in front of DNS: stopped, and waiting for its own server, as its clients are told."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, only
from packages import unpacked
from play import SOON, again, whole
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.local_faults import NSCD, nsswitch
from ebpfdns.lab.namespace import end
from ebpfdns.lab.topology import SERVER_1

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

OTHER_TABLES = ("passwd", "group", "services", "netgroup")
CONFIGURATION = "enable-cache hosts yes\npersistent hosts no\nshared hosts no\n" + "".join(
    f"enable-cache {table} no\n" for table in OTHER_TABLES
)
DEADLINE_S = 10.0


@contextlib.contextmanager
def nscd(sandbox: Sandbox) -> Iterator[subprocess.Popen[Any]]:
    """It listens; a skip where it cannot be had or does not start."""
    program = unpacked("nscd") / "usr/sbin/nscd"
    (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch("files dns"))
    configuration = sandbox.new_file("nscd.conf")
    configuration.write_text(CONFIGURATION)
    listener = sandbox.root / NSCD.lstrip("/")
    listener.parent.mkdir(exist_ok=True)
    listener.unlink(missing_ok=True)
    daemon = sandbox.popen([program, "-F", "-f", configuration])
    give_up_at = time.monotonic() + DEADLINE_S
    while not listener.exists():
        if daemon.poll() is not None or time.monotonic() > give_up_at:
            pytest.skip("nscd does not start here")
        time.sleep(0.002)
    try:
        yield daemon
    finally:
        end(daemon)
        listener.unlink(missing_ok=True)


def is_third(line: Line) -> bool:
    """After 1.2 s."""
    return line["event"] == "lookup_stuck" and line["lookup"]["update"] == 3


@again
def test_stopped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Nscd that is stopped is the cause for sure, by its name and pid; let go on it answers."""
    with FAULTS["healthy"].setup(sandbox, options="timeout:1 attempts:1"), nscd(sandbox) as daemon:
        daemon.send_signal(signal.SIGSTOP)
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", "www.lab.test"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(is_third)
            daemon.send_signal(signal.SIGCONT)
            lines = whole(agent.finish())
    assert (line["cause"]["id"], line["cause"]["confidence"]) == ("nscd_stall", "confirmed")
    facts = {fact["fact"]: fact for fact in line["cause"]["evidence"]}
    assert (facts["peer_stopped"]["pid"], facts["peer_stopped"]["state"]) == (daemon.pid, "T")
    assert f"(nscd, process {daemon.pid})" in line["cause"]["summary"]
    ended = only(lines, "lookup")
    assert (ended["lookup"]["status"], ended["cause"]["id"]) == ("ok", "nscd_stall")


@again
def test_at_work(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Nscd that waits for a silent server itself is not to blame: its own question is, and it is shown."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"), nscd(sandbox) as daemon:
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", "www.lab.test"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(is_third)
            program.process.kill()
            whole(agent.finish())
    assert line["cause"]["id"] == "forwarder_upstream_silent"
    facts = {fact["fact"] for fact in line["cause"]["evidence"]}
    assert not {"peer_stopped", "listener_backlog_full", "peer_rx_queue_not_empty"} & facts
    (hop,) = line["chain"]
    assert (hop["role"], hop["process"]["pid"], hop["joined"]) == ("daemon", daemon.pid, True)
    assert {query["server"]["address"] for query in hop["queries"]} == {SERVER_1}
