"""Waits of event loops, counted to the last one; and what a stuck lookup's thread waits in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

    Histogram = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

#: each call with a count of its own, so that no call can pass for another
COUNTS = {
    "epoll_wait": 1009,
    "epoll_pwait": 1013,
    "epoll_pwait2": 1019,
    "poll": 1021,
    "ppoll": 1031,
    "select": 1033,
    "pselect6": 1039,
}
NOT_ON_ARM = {"epoll_wait", "poll", "select"}
IS_ARM = os.uname().machine == "aarch64"
HERE = {call: count for call, count in COUNTS.items() if not (IS_ARM and call in NOT_ON_ARM)}
EVERY_LIBC = pytest.mark.parametrize("libc", ["glibc", "musl", "musl-stripped"])


def waits(lines: list[dict[str, Any]]) -> dict[str, Histogram]:
    """Call → histogram, from the last `stats`."""
    found: dict[str, Histogram] = lines[-1]["stats"]["latency_ms"]["event_loop_wait"]
    return found


def counts(found: dict[str, Histogram]) -> dict[str, int]:
    return {call: histogram["count"] for call, histogram in found.items()}


@EVERY_LIBC
@pytest.mark.parametrize("is_ready", [True, False], ids=("with_events", "timed_out"))
def test_each_wait_is_counted_once_under_its_own_name(
    sandbox: Sandbox, programs: dict[str, Path], libc: str, *, is_ready: bool
) -> None:
    """Seven system calls, a different number of each: the histograms hold exactly these numbers."""
    binary = of_this_machine(programs, f"waiter-{libc}")
    more = ["--is-ready"] if is_ready else []
    started = [Program(sandbox, [binary, "--call", call, "--count", HERE[call], *more]) for call in HERE]
    with Agent("attach", *(word for program in started for word in ("--pid", program.pid))) as agent:
        for program in started:
            program.go()
        results = dict(zip(HERE, [program.result() for program in started], strict=True))
        found = waits(agent.finish())
    assert counts(found) == {**dict.fromkeys(COUNTS, 0), **HERE}
    for call, histogram in found.items():
        so_far = [count for _, count in histogram["buckets"]]
        assert so_far == sorted(so_far)
        assert so_far[-1:] in ([], [histogram["count"]])
        if call in results:
            outcome = "with_events" if is_ready else "timed_out"
            assert results[call][outcome] == HERE[call]
            assert 0 < histogram["sum"] <= results[call]["elapsed_ms"]


def test_a_wait_is_measured_as_long_as_it_took(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Eleven waits that time out after 20 ms: each in a bucket above that, together less than the run."""
    binary = of_this_machine(programs, "waiter-glibc")
    started = [Program(sandbox, [binary, "--call", call, "--count", 11, "--timeout-ms", 20]) for call in HERE]
    with Agent("attach", *(word for program in started for word in ("--pid", program.pid))) as agent:
        for program in started:
            program.go()
        results = dict(zip(HERE, [program.result() for program in started], strict=True))
        found = waits(agent.finish())
    for call, result in results.items():
        buckets = found[call]["buckets"]
        assert [count for le, count in buckets if le <= 20 and count] == [], (call, buckets)
        assert found[call]["count"] == buckets[-1][1] == 11
        assert 11 * 20 <= found[call]["sum"] <= result["elapsed_ms"], call


def test_waits_of_others_are_not_counted(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Programs beside the target that wait 1,009 times by each call add nothing to its one wait."""
    binary = of_this_machine(programs, "waiter-glibc")
    target = Program(sandbox, [binary, "--call", "ppoll", "--count", 1])
    others = [Program(sandbox, [binary, "--call", call, "--count", 1009]) for call in HERE]
    with Agent("attach", "--pid", target.pid) as agent:
        for other in others:
            other.go()
            assert other.result()["waits"] == 1009
        target.go()
        target.result()
        found = waits(agent.finish())
    assert counts(found) == {**dict.fromkeys(COUNTS, 0), "ppoll": 1}


def test_a_wait_counts_when_it_ends_and_not_before(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """An endless wait is in no histogram while it lasts; the kill that ends it makes it one wait."""
    binary = of_this_machine(programs, "waiter-glibc")
    program = Program(sandbox, [binary, "--call", "ppoll", "--timeout-ms", -1])
    with Agent("attach", "--pid", program.pid, "--stats-every", "100ms") as agent:
        program.go()
        wait_until_in(program.pid, program.pid, {"ppoll"})
        before = len(of(agent.lines, "stats"))
        stats = agent.wait_for(lambda line: line["event"] == "stats", count=before + 3)
        program.process.kill()
        lines = agent.finish()
    assert counts(waits(stats)) == dict.fromkeys(COUNTS, 0)
    assert counts(waits(lines)) == {**dict.fromkeys(COUNTS, 0), "ppoll": 1}


# What a stuck lookup waits in, against what /proc says of its thread.

CALLS = {
    "x86_64": {0: "read", 7: "poll", 42: "connect", 45: "recvfrom", 271: "ppoll", 202: "futex"},
    "aarch64": {63: "read", 73: "ppoll", 203: "connect", 207: "recvfrom", 98: "futex"},
}


def sits_in(pid: int, tid: int) -> tuple[str | None, int]:
    """(name, first argument) of the system call that a thread is in."""
    words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
    if not words[0].isdigit():
        return None, 0
    return CALLS.get(os.uname().machine, {}).get(int(words[0])), int(words[1], 16)


def wait_until_in(pid: int, tid: int, names: set[str]) -> None:
    """Return as soon as the thread sits in one of these calls."""
    while sits_in(pid, tid)[0] not in names:
        os.sched_yield()


def silent_over_tcp() -> Fault:
    script = ({"transport": "udp", "truncate": True}, {"drop": True})
    return serving(*script)


def serving(*script: dict[str, Any]) -> Fault:
    plan = ServerPlan((topology.SERVER_1,), script)
    return Fault(name="own", sentence="The test's own.", servers=(plan,))


@pytest.mark.parametrize(("libc", "transport"), [("glibc", "udp"), ("glibc", "tcp"), ("musl", "udp")])
def test_waiting_on_is_what_the_thread_sits_in(
    sandbox: Sandbox, programs: dict[str, Path], libc: str, transport: str
) -> None:
    """The stuck line names the very call that /proc shows, its socket's server, and since when it waits."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    fault = FAULTS["silent"] if transport == "udp" else silent_over_tcp()
    with fault.setup(sandbox, options="timeout:5 attempts:1"):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--family", "inet"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms") as agent:
            program.go()
            line = agent.wait_for(lambda line: line["event"] == "lookup_stuck")[0]
            name, _ = sits_in(program.pid, line["thread"]["id"])
            program.process.kill()
            lines = agent.finish()
    assert line == of(lines, "lookup_stuck")[0]
    waiting = line["lookup"]["waiting_on"]
    assert waiting["syscall"] == name
    assert name in {"poll", "ppoll", "read", "recvfrom"}
    assert waiting["socket"]["rx_queue_bytes"] == 0
    if libc == "glibc":  # musl's socket is not connected to a server
        assert waiting["socket"]["server"] == {"address": topology.SERVER_1, "port": 53}
    else:
        assert waiting["socket"]["server"] is None
    if waiting["since_ms"] is not None:
        assert 0 < waiting["since_ms"] <= line["lookup"]["elapsed_ms"]
    assert only(lines, "lookup")["lookup"]["status"] == "abandoned"


def test_a_lookup_that_waits_for_a_connect_says_so(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Where TCP packets to the server vanish, the thread of the stuck lookup sits in connect, in SYN_SENT."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["refused"].setup(sandbox):
        text = f"nameserver {topology.BLACK_HOLE_SERVER}\noptions use-vc timeout:5 attempts:1\n"
        sandbox.write_resolv_conf(text)
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--family", "inet"])
        with Agent("attach", "--pid", program.pid, "--stuck-after", "300ms") as agent:
            program.go()
            line = agent.wait_for(lambda line: line["event"] == "lookup_stuck")[0]
            name, _ = sits_in(program.pid, line["thread"]["id"])
            connect = agent.wait_for(lambda line: line["event"] == "connect_stuck")[0]["connect"]
            program.process.kill()
            agent.finish()
    assert line["lookup"]["waiting_on"]["syscall"] == name == "connect"
    assert connect["server"] == {"address": topology.BLACK_HOLE_SERVER, "port": 53}
    assert (connect["purpose"], connect["tcp"]["state"]) == ("dns", "SYN_SENT")


def test_a_healthy_answer_leaves_its_waits(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A resolver's own polls are waits of the target too: 101 lookups wait at least as often."""
    binary = of_this_machine(programs, "lookup-musl")
    with serving({**GOOD_ANSWER, "delay_ms": 5}).setup(sandbox, log=False):
        program = Program(sandbox, [binary, "--name", "www.lab.test", "--count", 101, "--threads", 0])
        with Agent("attach", "--pid", program.pid) as agent:
            program.go()
            assert program.result()["ok"] == 101
            found = waits(agent.finish())
    assert sum(found[call]["count"] for call in ("poll", "ppoll")) >= 101
    assert sum(found[call]["count"] for call in found if "poll" not in call or "epoll" in call) == 0
    assert sum(found[call]["sum"] for call in ("poll", "ppoll")) >= 101 * 4
