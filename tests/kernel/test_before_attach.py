"""Programs that are stuck before the agent comes: recognised within two seconds, followed, ended once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, environment, of, only
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan
from ebpfdns.lab.namespace import Sandbox
from ebpfdns.observe import processes, snapshot, syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

needs_nft = pytest.mark.skipif(shutil.which("nft") is None, reason="apt-get install nftables")
NAME = "www.lab.test"
SLOW = "timeout:3 attempts:2"
SOON_S = 2.0  # the promise
DEADLINE_S = 30.0
CUT = {"transport": "udp", "truncate": True}
SILENT_TCP = ({**CUT}, {"transport": "tcp", "drop": True})
STUCK = "lookup_stuck"
#: what everybody has, with the words that `Program` puts behind it
REAL = {
    "Python": [sys.executable, "-c", "import socket; socket.getaddrinfo('www.lab.test', 80)"],
    "curl": ["curl", "-q", "-s", "http://www.lab.test/"],
    "getent": ["getent", "ahosts", "www.lab.test"],
    "dig": ["dig", "+time=5", "+tries=2", "www.lab.test"],
    "Node": ["node", "-e", "require('dns').resolve4('www.lab.test', () => {})"],
}
#: of those, programs whose resolver is their own
OWN = {"dig", "Node"}
#: faults that no question reaches
LOCAL = {"nscd_stall"}


def serving(*script: dict[str, Any]) -> Fault:
    return Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait for a fact that has no file."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def sits_in(pid: int, call: str, count: int = 1) -> Callable[[], bool]:
    """Whether so many threads of the process sit in a system call."""

    def is_so() -> bool:
        paths = [f"/proc/{pid}/task/{tid}/syscall" for tid in processes.threads(pid)]
        return sum(call_in(path) == call for path in paths) >= count

    return is_so


def call_in(path: str) -> str | None:
    try:
        with open(path) as file:  # noqa: PTH123 - in a loop
            return syscalls.parse_call(file.read()).name
    except OSError:
        return None


@contextmanager
def stuck(
    sandbox: Sandbox,
    fault: Fault,
    argv: list[object],
    call: str = "poll",
    *,
    count: int = 1,
    options: str = SLOW,
) -> Iterator[Program]:
    """A program whose threads sit in this system call of a lookup, before there is an agent."""
    with fault.setup(sandbox, options=options, log=True) as running:
        program = Program(sandbox, argv)
        program.go()
        wait_until(lambda: running.queries() or fault.name in LOCAL)
        wait_until(sits_in(program.pid, call, count))
        yield program


def is_stopped(pid: int) -> bool:
    tids = processes.threads(pid)
    states = [Path(f"/proc/{pid}/task/{tid}/stat").read_text().rpartition(") ")[2][0] for tid in tids]
    return set(states) == {"T"}


def seconds_after_attach(line: Line, lines: list[Line]) -> float:
    """When the line was written, by its own clock."""
    attached, told = (datetime.fromisoformat(one["ts"]) for one in (of(lines, "target")[0], line))
    return (told - attached).total_seconds()


def is_stuck(line: Line) -> bool:
    return line["event"] == STUCK


def was_asked_again(line: Line) -> bool:
    """Whether a repetition of its questions was seen."""
    queries = line["lookup"]["queries"] if is_stuck(line) else []
    return bool({query["resent_ms"] for query in queries} - {None})


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def check_earlier(line: Line) -> None:
    """Nothing is told that would need its start."""
    lookup = line["lookup"]
    assert lookup["since"] == "before_attach"
    assert (lookup["started"], lookup.get("elapsed_ms"), lookup.get("duration_ms")) == (None, None, None)
    assert lookup["open_for_at_least_ms"] > 0


def test_a_silent_server(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The server it waits for is named within two seconds; what it asks later is its own; it ends once."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    repeated = stuck(sandbox, FAULTS["silent"], argv, options="timeout:2 attempts:5")
    with repeated as program, Agent("attach", "--pid", program.pid) as agent:
        agent.wait_for(was_asked_again)
        program.process.kill()
        lines = agent.finish()
    first, *later = of(lines, STUCK)
    assert seconds_after_attach(first, lines) < SOON_S
    for line in of(lines, STUCK) + of(lines, "lookup"):
        check_earlier(line)
        assert line["cause"]["id"] == "ns_silent"
        assert topology.SERVER_1 in line["cause"]["summary"]
    assert verdict(first) == ("ns_silent", "likely")
    assert {query["id"] for line in later for query in line["lookup"]["queries"]} == {
        query["id"] for query in first["lookup"]["queries"]
    }
    assert "attached_late" in [fact["fact"] for fact in first["cause"]["evidence"]]
    assert (first["lookup"]["name"], first["lookup"]["api"]) == (NAME, "getaddrinfo")  # from its stack
    assert {query["type"] for query in first["lookup"]["queries"]} == {"A", "AAAA"}
    for query in first["lookup"]["queries"]:
        assert query["server"] == {"address": topology.SERVER_1, "port": 53}
        assert (query["network"]["transport"], query["state"]) == ("udp", "waiting")
        assert (query["sent_ms"], query["attempt"]) == (None, None)
    assert {line["lookup"]["id"] for line in later} == {first["lookup"]["id"]}
    ended = only(lines, "lookup")["lookup"]
    assert (ended["id"], ended["status"], ended["name"]) == (first["lookup"]["id"], None, NAME)
    assert {question["type"] for question in ended["queries"]} == {"A", "AAAA"}
    assert lines[-1]["stats"]["lookups"]["end_unseen"] == 1


def test_a_stopped_program(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Whatever its server does: a program that is stopped reads no answer."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with stuck(sandbox, FAULTS["silent"], argv, options="timeout:9 attempts:2") as program:
        program.process.send_signal(signal.SIGSTOP)
        with Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            agent.finish()
    assert first["cause"]["id"] == "target_stopped"
    assert (first["lookup"]["since"], first["lookup"]["name"]) == ("before_attach", NAME)


def test_a_program_that_was_stopped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After it was stopped, or frozen, poll goes on under another name."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with stuck(sandbox, FAULTS["silent"], argv, options="timeout:9 attempts:2") as program:
        program.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: is_stopped(program.pid))
        program.process.send_signal(signal.SIGCONT)
        wait_until(sits_in(program.pid, "restart_syscall"))
        with Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            agent.finish()
    assert verdict(first) == ("ns_silent", "likely")
    assert first["lookup"]["name"] == NAME


@pytest.mark.parametrize("flavour", ["musl", "musl-static", "musl-stripped"])
def test_musl(sandbox: Sandbox, programs: dict[str, Path], flavour: str) -> None:
    """Its socket belongs to no server: servers and question are on its stack, which cannot be walked."""
    argv = [of_this_machine(programs, f"lookup-{flavour}"), "--name", NAME]
    held_up = stuck(sandbox, FAULTS["silent"], argv, options="timeout:8 attempts:2")
    with held_up as program, Agent("attach", "--pid", program.pid) as agent:
        lines = agent.finish()
    first = of(lines, STUCK)[0]
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("ns_silent", "likely")
    assert (first["lookup"]["name"], first["lookup"]["api"]) == (NAME, None)
    assert {query["server"]["address"] for query in first["lookup"]["queries"]} == {topology.SERVER_1}
    assert {query["type"] for query in first["lookup"]["queries"]} == {"A", "AAAA"}
    ended = only(lines, "lookup")["lookup"]
    assert {query["resent_ms"] is None for query in ended["queries"]} == {False}  # one lookup, asked again


def test_a_thread_that_goes_on_has_left_its_lookup(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """No probe sees the return of such a call; that its thread does something else is seen."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--linger"]
    with stuck(sandbox, FAULTS["silent"], argv) as program, Agent("attach", "--pid", program.pid) as agent:
        agent.wait_for(lambda line: line["event"] == "lookup")
        program.process.kill()
        lines = agent.finish()
    assert only(lines, "lookup")["lookup"]["status"] is None
    assert verdict(only(lines, "lookup"))[0] == "ns_silent"


def test_the_next_call_ends_it(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A call that begins shows that the earlier one is over, and is seen from its start."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--count", 2]
    with stuck(sandbox, FAULTS["silent"], argv) as program:
        with Agent("attach", "--pid", program.pid, "--all") as agent:
            lines = agent.finish()
        assert program.result()["failed"] == 2
    earlier, later = (line["lookup"] for line in of(lines, "lookup"))
    assert (earlier["since"], earlier["status"]) == ("before_attach", None)
    assert (later["since"], later["status"], later["error"]["type"]) == ("attach", "failed", "EAI_AGAIN")
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["started"], counts["failed"], counts["end_unseen"]) == (2, 1, 1)


def test_many_threads(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Each of a hundred and one threads is a lookup of its own, all told within two seconds."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME, "--unique", "--threads", 101]
    many = stuck(sandbox, FAULTS["silent"], argv, count=101)
    with many as program, Agent("attach", "--pid", program.pid) as agent:
        first = agent.wait_for(is_stuck, 101)
        lines = agent.finish()
    assert len({line["lookup"]["id"] for line in first}) == 101
    assert len({line["thread"]["id"] for line in first}) == 101
    assert max(seconds_after_attach(line, lines) for line in first) < SOON_S
    assert {line["lookup"]["status"] for line in of(lines, "lookup")} == {None}
    assert len({line["lookup"]["name"] for line in of(lines, "lookup")} - {None}) >= snapshot.MAX_STACKS


@pytest.mark.parametrize("flavour", ["glibc", "musl-stripped"])
def test_short_lookups_are_not_stuck(sandbox: Sandbox, programs: dict[str, Path], flavour: str) -> None:
    """Of a thread that is in one lookup after the other, whenever one looks, nothing is said to be stuck."""
    argv = [of_this_machine(programs, f"lookup-{flavour}"), "--name", NAME, "--count", 61]
    quick = serving({**GOOD_ANSWER, "delay_ms": 37})
    with stuck(sandbox, quick, argv) as program, Agent("attach", "--pid", program.pid) as agent:
        lines = agent.finish()
    assert [line["message"] for line in of(lines, STUCK) + of(lines, "lookup")] == []


def test_tcp_that_is_silent(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Connected before, asked before: the server that sends no answer over TCP is named."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    connected = stuck(sandbox, serving(*SILENT_TCP), argv, "read")
    with connected as program, Agent("attach", "--pid", program.pid) as agent:
        (first,) = agent.wait_for(is_stuck)
        program.process.kill()
        lines = agent.finish()
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("tcp53_silent", "likely")
    assert first["lookup"]["queries"][0]["network"]["transport"] == "tcp"
    check_earlier(first)
    assert only(lines, "lookup")["lookup"]["status"] is None


@needs_nft
def test_tcp_that_is_blocked(programs: dict[str, Path]) -> None:
    """A thread in connect to port 53 is in a lookup; the SYN that is not answered is the cause."""
    chain = "add chain inet lab wall { type filter hook input priority 0; }"
    rules = f"add table inet lab; {chain}; add rule inet lab wall tcp dport 53 drop"
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with Sandbox() as sandbox:
        assert sandbox.popen(["nft", rules], stderr=subprocess.PIPE).wait() == 0
        blocked = stuck(sandbox, serving(CUT, GOOD_ANSWER), argv, "connect")
        with blocked as program, Agent("attach", "--pid", program.pid) as agent:
            (first,) = agent.wait_for(is_stuck)
            program.process.kill()
            lines = agent.finish()
    assert seconds_after_attach(first, lines) < SOON_S
    assert first["cause"]["id"] == "tcp53_blocked"
    assert first["lookup"]["waiting_on"]["syscall"] == "connect"
    assert first["lookup"]["queries"] == []  # it has no connection to ask on
    check_earlier(first)


def test_a_name_service_that_never_answers(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A thread that waits at the socket of a local name service is in a lookup that asks nobody else."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    with (
        stuck(sandbox, FAULTS["nscd_stall"], argv) as program,
        Agent("attach", "--pid", program.pid) as agent,
    ):
        (first,) = agent.wait_for(is_stuck)
        program.process.kill()
        lines = agent.finish()
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert first["cause"]["id"] == "nscd_stall"
    assert first["lookup"]["queries"] == []
    assert only(lines, "lookup")["lookup"]["status"] is None


def test_a_lock_inside_the_resolver(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A thread that waits for another's gethostbyname is in a lookup too: only its stack tells."""
    words = ["--api", "gethostbyname", "--name", NAME, "--threads", 3]
    argv = [of_this_machine(programs, "lookup-glibc"), *words]
    locked = stuck(sandbox, FAULTS["silent"], argv, "futex", count=2)
    with locked as program, Agent("attach", "--pid", program.pid) as agent:
        first = agent.wait_for(is_stuck, 3)
        program.process.kill()
        agent.finish()
    assert {line["lookup"]["api"] for line in first} == {"gethostbyname"}
    assert sorted(line["cause"]["id"] for line in first) == [
        *["gethostbyname_serialized"] * 2,
        "ns_silent",
    ]


@pytest.mark.parametrize("name", REAL)
def test_real_programs(sandbox: Sandbox, name: str) -> None:
    """Whatever the program, and whichever of its threads looks up: server and cause within two seconds."""
    if shutil.which(REAL[name][0]) is None:
        pytest.skip(f"{REAL[name][0]} is not installed")
    with FAULTS["silent"].setup(sandbox, options=SLOW, log=True) as running:
        process = sandbox.popen(REAL[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(running.queries)
        with Agent("attach", "--pid", process.pid) as agent:
            agent.wait_for(is_stuck)
            process.kill()
            lines = agent.finish()
    first = of(lines, STUCK)[0]
    check_earlier(first)
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("ns_silent", "likely")
    expected = (None, "unknown") if name in OWN else ("getaddrinfo", "glibc")
    assert (first["lookup"]["api"], first["lookup"]["resolver"]) == expected
    assert [query["server"]["address"] for query in first["lookup"]["queries"]][:1] == [topology.SERVER_1]
    ended = [line["lookup"] for line in of(lines, "lookup")]
    assert [lookup["id"] for lookup in ended if lookup["since"] == "before_attach"] == [first["lookup"]["id"]]


@pytest.mark.parametrize(
    ("words", "call"), [("", "connect"), ("--non-blocking --wait", "poll")], ids=["blocking", "non-blocking"]
)
def test_a_connect_to_a_black_hole(
    sandbox: Sandbox, programs: dict[str, Path], words: str, call: str
) -> None:
    """Where it goes, and that its SYN has no answer, is told within two seconds; it is ended once."""
    argv = [of_this_machine(programs, "connector-glibc"), "--address", topology.BLACK_HOLE, *words.split()]
    program = Program(sandbox, argv)
    program.go()
    wait_until(sits_in(program.pid, call))
    with Agent("attach", "--pid", program.pid) as agent:
        (first,) = agent.wait_for(lambda line: line["event"] == "connect_stuck")
        program.process.kill()
        lines = agent.finish()
    connect = first["connect"]
    assert seconds_after_attach(first, lines) < SOON_S
    assert verdict(first) == ("connect_after_dns", "possible")
    assert connect["server"] == {"address": topology.BLACK_HOLE, "port": 80}
    assert (connect["since"], connect["elapsed_ms"], connect["lookup"]) == ("before_attach", None, None)
    assert connect["tcp"]["state"] == "SYN_SENT"
    ended = only(lines, "connect")["connect"]
    assert ended["id"] == connect["id"]
    assert ended["status"] is None
    assert ("thread" in first) == (call == "connect")


@needs_nft
def test_a_connect_that_comes_up(programs: dict[str, Path]) -> None:
    """A blocking connect that began before is ended by its own return: how, is known; since when, is not."""
    chain = "add chain inet lab wall { type filter hook input priority 0; }"
    rules = f"add table inet lab; {chain}; add rule inet lab wall tcp dport 53 drop"
    argv = [of_this_machine(programs, "connector-glibc"), "--address", topology.SERVER_1, "--port", 53]
    with Sandbox() as sandbox, FAULTS["healthy"].setup(sandbox):
        assert sandbox.popen(["nft", rules], stderr=subprocess.PIPE).wait() == 0
        program = Program(sandbox, argv)
        program.go()
        wait_until(sits_in(program.pid, "connect"))
        with Agent("attach", "--pid", program.pid) as agent:
            agent.wait_for(lambda line: line["event"] == "connect_stuck")
            assert sandbox.popen(["nft", "flush ruleset"], stderr=subprocess.PIPE).wait() == 0
            lines = agent.finish()
    (connect,) = (line["connect"] for line in of(lines, "connect"))
    assert (connect["status"], connect["since"], connect["duration_ms"]) == ("ok", "before_attach", None)
    assert lines[-1]["stats"]["connects"]["ok"] == 1


def test_a_recording_replays_the_same(sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path) -> None:
    """What was found by looking is in the recording: it says the same again, byte for byte."""
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", NAME]
    recording = tmp_path / "earlier.rec"
    repeated = stuck(sandbox, FAULTS["silent"], argv, options="timeout:1 attempts:3")
    with repeated as program, Agent("attach", "--pid", program.pid, "--record", recording) as agent:
        agent.finish()
    words = [sys.executable, "-P", "-m", "ebpfdns", "replay", str(recording)]
    assert subprocess.check_output(words, env=environment()) == agent.text
