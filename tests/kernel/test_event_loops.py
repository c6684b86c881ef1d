"""Event loops that are not served: what is told of them, and of the answers that lie unread meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of
from play import SOON, Played, play
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan, late_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"
ASYNCIO = (sys.executable, "-m", "ebpfdns.lab.asyncio_target", "--name", "www.lab.test")
AWAY_MS = 1709
#: from the answer until somebody reads it, on a machine that is busy
SOON_MS = 400


@pytest.fixture(scope="module")
def binary(programs: dict[str, Path]) -> Path:
    return of_this_machine(programs, "eventloop-glibc")


def causes(played: Played) -> set[str]:
    """The ids of all causes that any line names."""
    return {line["cause"]["id"] for line in played.lines if "cause" in line}


def facts(line: Line) -> dict[str, Line]:
    """The evidence of a line by fact."""
    return {entry["fact"]: entry for entry in line["cause"]["evidence"]}


def check_unread_answer(played: Played, kind: str, syscall: str | None) -> None:
    """Everything that an answer leaves behind which a loop of this kind does not read."""
    stuck, stalls, ended = played.of("lookup_stuck"), played.of("event_loop_stall"), played.only("lookup")
    assert causes(played) == {"reply_not_read"}
    assert [line["cause"]["confidence"] for line in [*stuck, ended]] == ["confirmed"] * (len(stuck) + 1)
    assert len(stuck) in (2, 3)  # at 300, 600 and 1200 ms; a look may come late on a machine that is busy
    for line in stuck:
        told = facts(line)
        query = line["lookup"]["queries"][0]
        assert (query["state"], query["rcode"]) == ("answered", "NOERROR")
        assert told["rx_queue_not_empty"]["rx_queue_bytes"] > 0
        assert told["rx_queue_not_empty"]["unread_ms"] <= line["lookup"]["elapsed_ms"]
        assert told["event_loop_away"]["kind"] == kind
        elsewhere = "thread_running_elsewhere" if syscall is None else "blocked_in_syscall"
        assert told[elsewhere]["syscall"] == syscall
        assert told[elsewhere]["thread"] == stalls[0]["thread"]["id"]
    # The loop: who, since when, what waits, what instead.
    loops = [line["event_loop"] for line in stalls]
    assert [loop["update"] for loop in loops] in ([1, 2], [1, 2, 3])
    returns = [datetime.fromisoformat(loop["last_return"]) for loop in loops]
    assert max(returns) - min(returns) < timedelta(milliseconds=5)
    for loop in loops:
        assert (loop["kind"], loop["fd"] is None) == (kind, kind != "epoll")
        assert loop["lookup"] == {"id": ended["lookup"]["id"], "name": "www.lab.test"}
        waiting = [entry for entry in loop["ready"] if entry["purpose"] == "dns"]
        assert len(waiting) == 1
        assert waiting[0]["socket"]["server"] == {"address": topology.SERVER_1, "port": 53}
        assert waiting[0]["fd"] == facts(stuck[0])["rx_queue_not_empty"]["fd"]
        assert waiting[0]["ready_ms"] <= loop["away_ms"]
        assert loop["doing"]["syscall"] == syscall
    # It ends when the thread is back.
    lookup = ended["lookup"]
    assert (lookup["status"], lookup["api"]) == ("ok", "wire")
    assert AWAY_MS - 2 <= lookup["duration_ms"] < AWAY_MS + SOON_MS  # Node's clock counts milliseconds
    assert lookup["queries"][0]["reply_ms"] < SOON_MS
    assert played.stats["lookups"]["ok"] == played.stats["lookups"]["started"] == 1


@pytest.mark.parametrize(
    ("kind", "away", "syscall"),
    [("epoll", "busy", None), ("poll", "lock", "futex"), ("select", "sleep", "clock_nanosleep")],
)
def test_a_loop_in_c_that_is_away(binary: Path, kind: str, away: str, syscall: str | None) -> None:
    """A loop by epoll, poll or select that computes, waits for a lock, or sleeps: the answer lies unread."""
    argv = [binary, "--loop", kind, "--away", away, "--away-ms", AWAY_MS]
    check_unread_answer(play(FAULTS["healthy"], {"loop": argv}), kind, syscall)


@pytest.mark.parametrize(("away", "syscall"), [("sleep", "clock_nanosleep"), ("busy", None)])
def test_asyncio_with_a_resolver_of_its_own(away: str, syscall: str | None) -> None:
    """An asyncio program asks by a datagram, and a callback blocks the only thread."""
    argv = [*ASYNCIO, "--away", away, "--away-ms", AWAY_MS]
    check_unread_answer(play(FAULTS["healthy"], {"loop": argv}), "epoll", syscall)


@pytest.mark.skipif(shutil.which("node") is None, reason="apt-get install nodejs")
def test_node_with_c_ares() -> None:
    """Node's dns.resolve4, whose socket libuv has not yet made a member, and a busy script."""
    argv = [str(shutil.which("node")), WORKLOADS / "node_resolve.js", "--away-ms", AWAY_MS]
    check_unread_answer(play(FAULTS["healthy"], {"loop": argv}), "epoll", None)


@pytest.mark.parametrize("kind", ["epoll", "poll", "select"])
def test_a_loop_that_comes_back_is_healthy(binary: Path, kind: str) -> None:
    """A loop that reads its answer as it comes has no stall, no cause, and a lookup as short as it was."""
    played = play(FAULTS["healthy"], {"loop": [binary, "--loop", kind]}, "--all")
    assert played.of("event_loop_stall") == played.of("lookup_stuck") == []
    ended = played.only("lookup")
    assert "cause" not in ended
    assert ended["lookup"]["duration_ms"] < SOON_MS
    assert played.stats["lookups"]["ok"] == played.stats["lookups"]["started"] == 1


@pytest.mark.parametrize("count", [7, 13])
def test_every_unread_answer_is_counted_once(binary: Path, count: int) -> None:
    """Of several answers as many as are remembered go on, the others end as they come; none twice."""
    argv = [binary, "--away", "sleep", "--away-ms", 701, "--queries", count]
    played = play(FAULTS["healthy"], {"loop": argv}, "--all")
    assert played.results["loop"]["answered"] == count
    durations_ms = [line["lookup"]["duration_ms"] for line in played.of("lookup")]
    assert len(durations_ms) == count
    assert sum(duration_ms >= 700 for duration_ms in durations_ms) == min(count, 8)
    assert played.stats["lookups"]["ok"] == played.stats["lookups"]["started"] == count
    assert played.stats["queries"] == {"sent": count, "answered": count, "unanswered": 0}


# Near misses.


def test_a_silent_server_is_no_unread_answer(binary: Path) -> None:
    """A loop that is away while nothing has arrived is told as no stall, and the server is to blame."""
    with_gap = [binary, "--away-ms", AWAY_MS]
    fault = FAULTS["silent"]
    with_agent = play_until_stuck(fault, with_gap, "lookup_stuck", 3)
    assert of(with_agent, "event_loop_stall") == []
    assert {line["cause"]["id"] for line in of(with_agent, "lookup_stuck")} == {"ns_silent"}


def play_until_stuck(fault: Fault, argv: list[object], event: str, count: int) -> list[Line]:
    """The lines up to the end of a program that is killed after so many lines of a kind."""
    from ebpfdns.lab.namespace import Sandbox as Place  # noqa: PLC0415 - the type's name is taken

    with Place() as sandbox, fault.setup(sandbox):
        program = Program(sandbox, argv)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            agent.wait_for(lambda line: line["event"] == event, count)
            program.process.kill()
            return agent.finish()


def test_an_answer_that_libc_leaves_unread(binary: Path) -> None:
    """A signal handler takes the thread of a getaddrinfo: the answer is in the queue of its socket."""
    played = play(
        late_reply(100),
        {"call": [binary, "--loop", "none", "--away-ms", AWAY_MS]},
        options="timeout:5 attempts:1",
    )
    last = played.of("lookup_stuck")[-1]
    assert (last["cause"]["id"], last["cause"]["confidence"]) == ("reply_not_read", "confirmed")
    told = facts(last)
    assert told["thread_running_elsewhere"]["state"] == "R"
    assert told["rx_queue_not_empty"]["unread_ms"] >= 250
    assert "event_loop_away" not in told
    assert played.of("event_loop_stall") == []
    assert played.only("lookup")["lookup"]["status"] == "ok"
    assert "late_reply" not in causes(played)


def test_a_late_answer_while_the_next_server_is_polled() -> None:
    """While glibc polls its second server, the first one answers: that is late_reply."""
    late = ServerPlan((topology.SERVER_1,), ({**GOOD_ANSWER, "delay_ms": 1300},))
    silent = ServerPlan((topology.SERVER_2,), ({"drop": True},))
    fault = Fault(
        name="own",
        sentence="The test's own.",
        nameservers=(topology.SERVER_1, topology.SERVER_2),
        servers=(late, silent),
    )
    target = [sys.executable, "-m", "ebpfdns.lab.target", "--name", "www.lab.test"]
    played = play(fault, {"call": target}, options="timeout:1 attempts:2")
    assert "reply_not_read" not in causes(played)
    assert played.only("lookup")["cause"]["id"] == "late_reply"


def test_a_stopped_loop_is_told_as_stopped(sandbox: Sandbox, binary: Path) -> None:
    """The answer lies unread because the process is stopped: that comes first."""
    with FAULTS["healthy"].setup(sandbox):
        program = Program(sandbox, [binary, "--away-ms", 20_000])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            program.process.send_signal(signal.SIGSTOP)
            line = agent.wait_for(lambda line: line.get("cause", {}).get("id") == "target_stopped")[0]
            program.process.kill()
            agent.finish()
    assert line["cause"]["confidence"] == "confirmed"
    assert "process_stopped" in facts(line)


# Other things that wait for a loop, and other reasons why nobody comes.


def test_asyncio_whose_executor_has_the_answer() -> None:
    """The answer of loop.getaddrinfo waits in the loop's own socket pair: a stall, and no lookup is stuck."""
    argv = [*ASYNCIO, "--by", "getaddrinfo", "--away-ms", 2 * AWAY_MS]
    played = play(FAULTS["healthy"], {"loop": argv})
    loops = [line["event_loop"] for line in played.of("event_loop_stall")]
    assert loops
    for loop in loops:
        assert (loop["kind"], loop["lookup"], loop["doing"]["syscall"]) == ("epoll", None, "clock_nanosleep")
        (waiting,) = loop["ready"]
        assert waiting["socket"] == {"server": None, "network": {"transport": "unix"}}
        assert waiting["rx_queue_bytes"] > 0
    assert played.of("lookup_stuck") == []


@contextlib.contextmanager
def cgroup(controller: str, pid: int) -> Iterator[Path]:
    """A cgroup (v1) of the test's own with this process in it, until it is gone."""
    tree = Path("/sys/fs/cgroup") / controller
    if not (tree / "cgroup.procs").exists():
        pytest.skip(f"{tree} is not mounted here")
    directory = tree / f"ebpfdns-loops-{os.getpid()}"
    directory.mkdir()
    try:
        (directory / "cgroup.procs").write_text(str(pid))
        yield directory
    finally:
        for left in (directory / "cgroup.procs").read_text().split():
            (tree / "cgroup.procs").write_text(left)
        directory.rmdir()


def test_a_loop_out_of_cpu_time(sandbox: Sandbox, binary: Path) -> None:
    """A CPU limit lets the thread run 3 ms of 100: who did not read is out of CPU time, not busy."""
    with FAULTS["healthy"].setup(sandbox):
        program = Program(sandbox, [binary, "--away-ms", 20_000])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            with cgroup("cpu", program.pid) as directory:
                (directory / "cpu.cfs_period_us").write_text("100000")
                (directory / "cpu.cfs_quota_us").write_text("3000")
                line = agent.wait_for(lambda line: line.get("cause", {}).get("id") == "target_stopped")[0]
                stall = agent.wait_for(lambda line: (throttled_ms(line) or 0) > 0)[0]
                program.process.kill()
                program.process.wait()
            agent.finish()
    told = facts(line)
    assert line["cause"]["confidence"] == "confirmed"
    assert told["cpu_throttled"]["throttled_ms"] > told["cpu_throttled"]["interval_ms"] / 2
    assert (told["cpu_throttled"]["quota_us"], told["cpu_throttled"]["period_us"]) == (3000, 100_000)
    assert stall["event_loop"]["doing"]["throttled_ms"] <= stall["event_loop"]["away_ms"]


def throttled_ms(line: Line) -> float | None:
    """Of an event_loop_stall line."""
    found: float | None = line.get("event_loop", {}).get("doing", {}).get("throttled_ms")
    return found


def test_a_frozen_loop(sandbox: Sandbox, binary: Path) -> None:
    """The answer lies unread because the cgroup is frozen."""
    with FAULTS["healthy"].setup(sandbox):
        program = Program(sandbox, [binary, "--away", "sleep", "--away-ms", 20_000])
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            first = agent.wait_for(lambda line: line["event"] == "lookup_stuck")[0]
            with cgroup("freezer", program.pid) as directory:
                (directory / "freezer.state").write_text("FROZEN")
                line = agent.wait_for(lambda line: line.get("cause", {}).get("id") == "target_stopped")[0]
                (directory / "freezer.state").write_text("THAWED")
                program.process.kill()
                program.process.wait()
            agent.finish()
    assert first["cause"]["id"] == "reply_not_read"
    assert line["cause"]["confidence"] == "confirmed"
    assert facts(line)["process_stopped"]["frozen"] is True
