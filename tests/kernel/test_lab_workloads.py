"""The lab's server and the workloads, without any fault of a resolver: what each promises is true."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from lab_runs import (
    DEADLINE_S,
    IMPATIENT,
    NOT_POSSIBLE_HERE,
    PATIENT,
    run,
    serving,
)

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]

PAIRS = {
    "sendto": "recvfrom",
    "send": "recv",
    "sendmsg": "recvmsg",
    "sendmmsg": "recvmmsg",
    "write": "read",
    "writev": "readv",
}
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")
RUDE = ("--longjmp", "--exec", "--cancel", "--fork-child", "--signal-thread-exit-ms=200")


# The server, by a client that is no resolver.


@pytest.mark.parametrize("server", [topology.SERVER_1, topology.SERVER_1_V6])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_wire_pairs(
    sandbox: Sandbox, programs: dict[str, Path], server: str, transport: str, libc: str
) -> None:
    """Each pair of send and receive calls gets an answer to each query, over every transport and family."""
    with serving({"answer": ["192.0.2.10"]}, listen=(server,)).setup(sandbox) as running:
        for send, receive in PAIRS.items():
            if (send, transport) == ("sendmmsg", "tcp"):
                continue
            how = ("--send", send, "--receive", receive, *(("--tcp",) if transport == "tcp" else ()))
            result = run(sandbox, programs, f"wire-{libc}", "--server", server, "--count", 5, *how)
            assert (result["sent"], result["answered"]) == (5, 5), send
        assert {query["transport"] for query in running.queries()} == {transport}
        assert {query["server"] for query in running.queries()} == {server}


@pytest.mark.parametrize("how", ["--pack", "--split-prefix"])
def test_tcp_messages_in_odd_segments(sandbox: Sandbox, programs: dict[str, Path], how: str) -> None:
    """Two messages in one segment, or a length alone in one, are all answered."""
    with FAULTS["healthy"].setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--tcp", how, "--count", 4)
    assert result["answered"] == 4


def test_io_uring(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Where the kernel allows io_uring, queries through it are answered like any others."""
    with FAULTS["healthy"].setup(sandbox):
        process = sandbox.popen(
            [programs["wire-glibc"], "--io-uring", "--count", "5"], stdout=subprocess.PIPE, text=True
        )
        output = process.communicate(timeout=DEADLINE_S)[0]
    if process.returncode == NOT_POSSIBLE_HERE:
        pytest.skip("io_uring is disabled here")
    assert json.loads(output)["answered"] == 5


@pytest.mark.parametrize(
    ("rule", "arguments", "expected"),
    [
        ({"answer": [], "flip_id": True}, (), {"answered": 0, "unexpected": 1}),
        ({"answer": [], "source": topology.SERVER_2}, (), {"answered": 1}),
        ({"answer": [], "source": topology.SERVER_2}, ("--connected",), {"answered": 0, "timed_out": 1}),
        ({"answer": [], "half": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"drop": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"close": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"answer": [], "delay_ms": 30}, (), {"answered": 1}),
        ({"answer": [], "delay_ms": 30}, ("--tcp",), {"answered": 1}),
    ],
)
def test_odd_replies(
    sandbox: Sandbox,
    programs: dict[str, Path],
    rule: dict[str, Any],
    arguments: tuple[str, ...],
    expected: dict[str, int],
) -> None:
    """Each way to answer badly reaches the client as such: unfit, cut, from elsewhere, or not at all."""
    with serving(rule).setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--timeout-ms", 200, *arguments)
    assert expected.items() <= result.items()


def test_only_the_nth_query_is_dropped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A rule for the first query leaves the second to the rules behind it."""
    with serving({"nth": 1, "drop": True}, {"answer": []}).setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--timeout-ms", 50, "--count", 3)
    assert (result["answered"], result["timed_out"]) == (2, 1)


@pytest.mark.parametrize("names", [(), ("--unique",)])
def test_server_stands_the_load(sandbox: Sandbox, programs: dict[str, Path], names: tuple[str, ...]) -> None:
    """Twenty thousand queries, as fast as they come, are all answered: the load tests' floor."""
    with FAULTS["healthy"].setup(sandbox, log=False):
        result = run(sandbox, programs, "wire-glibc", "--rate", 0, "--count", 20_000, *names)
    assert result["answered"] == result["sent"] == 20_000


# The other workloads.


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@pytest.mark.parametrize("call", WAITS)
def test_waiter(sandbox: Sandbox, programs: dict[str, Path], libc: str, call: str) -> None:
    """Each waiting call returns with an event when there is one, and without when time is over."""
    ready = run(sandbox, programs, f"waiter-{libc}", "--call", call, "--is-ready", "--timeout-ms", -1)
    assert (ready["with_events"], ready["failed"]) == (1, 0)
    idle = run(sandbox, programs, f"waiter-{libc}", "--call", call, "--timeout-ms", 20, "--count", 2)
    assert (idle["timed_out"], idle["failed"]) == (2, 0)
    assert idle["elapsed_ms"] > 35


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--address", topology.WEB, "--count", 20, "--parallel"), "ECONNREFUSED"),
        (("--address", "::1", "--non-blocking", "--wait", "--count", 20), "ECONNREFUSED"),
        (("--address", topology.NO_ROUTE, "--count", 20), "ENETUNREACH"),
        (("--unix", "/no/such/socket", "--count", 20), "ENOENT"),
        (("--unix", "@no-such-socket", "--count", 20), "ECONNREFUSED"),
    ],
)
def test_connector(
    sandbox: Sandbox, programs: dict[str, Path], arguments: tuple[Any, ...], code: str
) -> None:
    """Connects that must fail do, each with the errno its story needs."""
    assert run(sandbox, programs, "connector-musl", *arguments)["codes"] == {code: 20}


@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static", "musl-stripped"])
def test_many_threads_look_up(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """A thousand threads, released at once, each get their answer."""
    with FAULTS["healthy"].setup(sandbox, options=PATIENT):
        result = run(sandbox, programs, f"lookup-{libc}", "--name", "lab.test", "--threads", 1000, "--unique")
    assert result["ok"] == 1000


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@pytest.mark.parametrize("how", RUDE)
def test_rude_ways_out_of_a_lookup(sandbox: Sandbox, programs: dict[str, Path], how: str, libc: str) -> None:
    """The program survives each way of leaving a lookup half-way, and its last line counts what is left."""
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        arguments = ("--name", "www.lab.test", how, "--then-name", "192.0.2.1")
        result = run(sandbox, programs, f"lookup-{libc}", *arguments)
    left_over = {"--exec": (1, 0, 0), "--longjmp": (1, 0, 1), "--fork-child": (0, 1, 0)}
    assert (result["ok"], result["failed"], result["abandoned"]) == left_over.get(how, (0, 0, 1))
