"""Causes inside the program: locks, descriptors; each said when it is so, and not when nearly so."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of
from node import STARVED
from play import SHORT, SOON, again, whole
from program import Program, of_this_machine

from ebpfdns.lab.fault import Fault, ServerPlan, StuckDaemon
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER
from ebpfdns.lab.local_faults import MODULES, build_slow_module, nsswitch, write_huge_hosts
from ebpfdns.lab.namespace import plain_environment
from ebpfdns.lab.topology import SERVER_1
from ebpfdns.observe import syscalls
from ebpfdns.observe.processes import descendants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
QUEUED = "uv_getaddrinfo"


def verdicts(lines: list[Line], event: str = "lookup_stuck") -> list[tuple[str, str]]:
    return [(line["cause"]["id"], line["cause"]["confidence"]) for line in of(lines, event)]


def facts(line: Line) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


@pytest.fixture
def silent(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Servers that never answer; a lookup takes a second."""
    with FAULTS["silent"].setup(sandbox, options=SHORT):
        yield sandbox


def watched(program: Program, *words: object) -> list[Line]:
    """The agent's lines from the go to the program's end."""
    with Agent("attach", "--pid", program.pid, "--stuck-after", SOON, *words) as agent:
        program.go()
        lines = whole(agent.finish())
    program.result()
    return lines


@again
def test_gethostbyname_is_serialized(silent: Sandbox, programs: dict[str, Path]) -> None:
    """Of three threads in gethostbyname one asks; the others are told to wait for it, by its id and cause."""
    words = ["--api", "gethostbyname", "--name", NAME, "--threads", 3, "--unique"]
    lines = watched(Program(silent, [of_this_machine(programs, "lookup-glibc"), *words]))
    first = of(lines, "lookup_stuck")[:3]
    (asking,) = (line for line in first if line["lookup"]["queries"])
    waiting = [line for line in first if line is not asking]
    assert asking["cause"]["id"] == "ns_silent"
    for line in waiting:
        assert (line["cause"]["id"], line["cause"]["confidence"]) == ("gethostbyname_serialized", "confirmed")
        assert facts(line) == ["futex_wait_no_timeout", "leader_lookup"]
        leader = line["cause"]["evidence"][1]
        assert (leader["lookup"], leader["thread"]) == (asking["lookup"]["id"], asking["thread"]["id"])
        assert (leader["cause"], leader["name"]) == ("ns_silent", asking["lookup"]["name"])
        assert line["lookup"]["waiting_on"]["syscall"] == "futex"


@again
def test_serialized_already(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Who waited for gethostbyname's lock before tracing began is told so, and for whom, from stacks."""
    with FAULTS["silent"].setup(sandbox, options="timeout:4 attempts:1") as running:
        words = ["--api", "gethostbyname", "--name", NAME, "--threads", 2, "--unique"]
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), *words])
        program.go()
        while not running.queries():
            time.sleep(0.002)
        with Agent("attach", "--pid", program.pid) as agent:
            (line,) = agent.wait_for(
                lambda line: line.get("cause", {}).get("id") == "gethostbyname_serialized"
            )
            program.process.kill()
            lines = whole(agent.finish())
    assert line["lookup"]["since"] == "before_attach"
    assert facts(line) == ["futex_wait_no_timeout", "leader_lookup"]
    leader = line["cause"]["evidence"][1]["lookup"]
    asking = [told for told in of(lines, "lookup_stuck") if told["lookup"]["id"] == leader]
    assert {told["cause"]["id"] for told in asking} == {"ns_silent"}


@pytest.mark.parametrize(
    ("libc", "api"), [("glibc", "getaddrinfo"), ("glibc", "gethostbyname_r"), ("musl", "gethostbyname")]
)
@again
def test_not_serialized(silent: Sandbox, programs: dict[str, Path], libc: str, api: str) -> None:
    """Functions without a lock ask side by side, and no lookup is said to wait for another."""
    words = ["--api", api, "--name", NAME, "--threads", 2, "--unique"]
    lines = watched(Program(silent, [of_this_machine(programs, f"lookup-{libc}"), *words]))
    stuck = of(lines, "lookup_stuck")
    assert len({line["lookup"]["id"] for line in stuck}) == 2
    assert {cause for cause, _ in verdicts(lines)} == {"ns_silent"}


@pytest.mark.parametrize("api", ["getaddrinfo", "gethostbyname"])
@pytest.mark.parametrize("libc", ["glibc", "musl"])
@again
def test_no_descriptor_left(sandbox: Sandbox, programs: dict[str, Path], libc: str, api: str) -> None:
    """A lookup that may open nothing says so, whatever error libc made of it, each time."""
    with FAULTS["healthy"].setup(sandbox, options=SHORT):
        words = ["--api", api, "--name", NAME, "--count", 2]
        program = Program(sandbox, [of_this_machine(programs, f"lookup-{libc}"), *words])
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (3, 1024))
        lines = watched(program)
    assert verdicts(lines, "lookup") == [("fd_exhausted", "confirmed")] * 2
    for line in of(lines, "lookup"):
        assert facts(line) == ["fd_limit_hit", "query_sent"]
        assert line["cause"]["evidence"][0]["error"] == "EMFILE"
        assert f"prlimit --nofile=65536 --pid {program.pid}" in line["cause"]["remedy"]


@again
def test_just_enough_descriptors(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A low limit that is not reached is no cause: the silent server is."""
    with FAULTS["silent"].setup(sandbox, options=SHORT):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (5, 1024))
        lines = watched(program)
    assert verdicts(lines, "lookup") == [("ns_silent", "confirmed")]


@pytest.mark.skipif(shutil.which("node") is None, reason="apt-get install nodejs")
@again
def test_starved_thread_pool(sandbox: Sandbox) -> None:
    """Of five names that Node looks up two ask at a time; each other one is told to be behind these two."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"):
        lines = watched(Program(sandbox, ["node", "-e", STARVED, "--"]))
    stuck = of(lines, "lookup_stuck")
    first = [line for line in stuck if line["lookup"]["name"] in {"n0.lab.test", "n1.lab.test"}]
    assert {line["cause"]["id"] for line in first} == {"ns_silent"}
    of_third = [line for line in stuck if line["lookup"]["name"] == "n2.lab.test"]
    third = [line for line in of_third if line["lookup"]["api"] == QUEUED]
    assert {line["cause"]["id"] for line in third} == {"threadpool_starved"}
    sure = [line for line in third if line["cause"]["confidence"] == "confirmed"]
    assert facts(sure[0]) == ["query_sent", "thread_limit_reached", "leader_lookup", "leader_lookup"]
    assert {fact["lookup"] for fact in sure[0]["cause"]["evidence"][2:]} == {x["lookup"]["id"] for x in first}
    assert sure[0]["lookup"]["queries"] == []
    begun = [line for line in of_third if line["lookup"]["api"] == "getaddrinfo"]
    assert {line["cause"]["id"] for line in begun} == {"ns_silent"}


@pytest.mark.skipif(shutil.which("node") is None, reason="apt-get install nodejs")
@again
def test_no_thread_pool(sandbox: Sandbox) -> None:
    """Names that Node asks for by itself (c-ares) need no thread of the pool."""
    with FAULTS["healthy"].setup(sandbox, options=SHORT):
        program = Program(sandbox, ["node", "-e", STARVED.replace("dns.lookup", "dns.resolve4"), "--"])
        lines = watched(program, "--all")
    assert {line["lookup"]["api"] for line in of(lines, "lookup")} == {"wire"}
    assert [line for line in lines if line.get("cause")] == []


def parent_of(silent: Sandbox, programs: dict[str, Path], api: str) -> Program:
    """It forks while its only other thread is in a lookup; the child calls the same function."""
    words = ["--api", api, "--name", NAME, "--threads", 1, "--fork-child", "--mid-ms", 200]
    return Program(silent, [of_this_machine(programs, "lookup-glibc"), *words])


@again
def test_lock_that_a_fork_left(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A child that was forked while gethostbyname's lock was held waits for ever, and is told so."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"):
        program = parent_of(sandbox, programs, "gethostbyname")
        with Agent("attach", "--pid", program.pid, "--children", "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(
                lambda line: (
                    line["event"] == "lookup_stuck"
                    and line["process"]["pid"] != program.pid
                    and line["lookup"]["update"] == 3
                )
            )
            os.kill(line["process"]["pid"], signal.SIGKILL)
            lines = whole(agent.finish())
    child = line["process"]["pid"]
    assert (line["cause"]["id"], line["cause"]["confidence"]) == ("fork_lock_inherited", "confirmed")
    assert facts(line) == ["forked_without_exec", "futex_wait_no_timeout", "query_sent"]
    assert line["cause"]["evidence"][0]["threads"] == 1
    of_child = {told["cause"]["id"] for told in of(lines, "lookup_stuck", child)}
    assert of_child == {"fork_lock_inherited"}
    assert {told["cause"]["id"] for told in of(lines, "lookup_stuck", program.pid)} == {"ns_silent"}


@again
def test_child_that_is_stuck_already(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A child that waits for such a lock before tracing begins is recognised by its stack, and told why."""
    with FAULTS["silent"].setup(sandbox, options="timeout:5 attempts:1"):
        program = parent_of(sandbox, programs, "gethostbyname")
        program.go()
        while not (children := descendants(program.pid)) or not waits_for_lock(children[0]):
            time.sleep(0.002)
        with Agent("attach", "--pid", children[0]) as agent:
            (line,) = agent.wait_for(lambda line: line["event"] == "lookup_stuck")
            (sure,) = agent.wait_for(lambda line: line.get("cause", {}).get("confidence") == "confirmed")
            os.kill(children[0], signal.SIGKILL)
            whole(agent.finish())
    assert line["lookup"]["since"] == "before_attach"
    assert (line["cause"]["id"], sure["cause"]["id"]) == ("fork_lock_inherited",) * 2
    assert facts(sure)[:2] == ["forked_without_exec", "futex_wait_no_timeout"]


def waits_for_lock(pid: int) -> bool:
    return syscalls.parse_call(Path(f"/proc/{pid}/syscall").read_text()).name == "futex"


@again
def test_fork_without_a_lock(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A child whose function has no lock asks by itself, and its server is the cause."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"):
        program = parent_of(sandbox, programs, "getaddrinfo")
        lines = watched(program, "--children")
    assert len({line["process"]["pid"] for line in of(lines, "lookup_stuck")}) == 2
    assert {cause for cause, _ in verdicts(lines)} == {"ns_silent"}


def with_module(sandbox: Sandbox, programs: dict[str, Path], hosts: str) -> Program:
    """A program with a name source of ours, which sleeps for 4 s, somewhere in this order."""
    build_slow_module(sandbox)
    (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch(hosts))
    environment = plain_environment() | {"LD_LIBRARY_PATH": MODULES}
    return Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME], env=environment)


@again
def test_source_before_dns(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A name source that sleeps before dns is asked is named, as surely as its thread tells."""
    with FAULTS["healthy"].setup(sandbox, options=SHORT):
        lines = watched(with_module(sandbox, programs, "files slow dns"))
    stuck = of(lines, "lookup_stuck")
    assert {line["cause"]["id"] for line in stuck} == {"nsswitch_order_stall"}
    for line in stuck:
        assert "nss_source_before_dns" in facts(line)
        assert "slow" in line["cause"]["summary"]
        assert line["lookup"]["queries"] == []
    ended = of(lines, "lookup")[0]
    assert (ended["lookup"]["status"], ended["cause"]["id"]) == ("ok", "nsswitch_order_stall")


@again
def test_source_that_waits_for_its_daemon(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A name source that waits for a peer of its own, the only one before dns, is the cause for sure."""
    daemon = StuckDaemon(("--unix", "/run/slow/socket"))
    works = Fault("own", "The test's own.", servers=(daemon, ServerPlan((SERVER_1,), (GOOD_ANSWER,))))
    with works.setup(sandbox, options=SHORT) as running:
        program = with_module(sandbox, programs, "files slow dns")
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            (line,) = agent.wait_for(lambda line: line.get("lookup", {}).get("update") == 3)
            running.servers[0].kill()  # the source gives up, and dns is asked
            lines = whole(agent.finish())
    assert (line["cause"]["id"], line["cause"]["confidence"]) == ("nsswitch_order_stall", "confirmed")
    assert {"nss_source_before_dns", "unix_peer_waited_for"} <= set(facts(line))
    assert {cause for cause, _ in verdicts(lines, "lookup")} == {"nsswitch_order_stall"}


@again
def test_source_after_dns(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """The same source behind dns is not blamed for a server that is silent."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"):
        program = with_module(sandbox, programs, "files dns [TRYAGAIN=return] slow")
        lines = watched(program)
    assert {cause for cause, _ in verdicts(lines)} == {"ns_silent"}


@pytest.mark.parametrize(("count", "expected"), [(3_000_000, {"hosts_file_huge"}), (0, set())])
@again
def test_hosts_file(sandbox: Sandbox, programs: dict[str, Path], count: int, expected: set[str]) -> None:
    """A hosts file of millions of lines is what its reader's time goes into; a short one is never told."""
    hosts = sandbox.root / "etc/hosts"
    before = hosts.read_text()
    write_huge_hosts(sandbox, count)
    try:
        with FAULTS["healthy"].setup(sandbox, options=SHORT):
            program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name", NAME])
            with Agent("attach", "--pid", program.pid, "--stuck-after", "40ms") as agent:
                program.go()
                lines = whole(agent.finish())
    finally:
        hosts.write_text(before)
    assert {cause for cause, _ in verdicts(lines)} == expected
    for line in of(lines, "lookup_stuck"):
        assert line["cause"]["confidence"] == "confirmed"
        assert facts(line)[0] == "hosts_file_size"
        assert line["cause"]["evidence"][0]["size_bytes"] > 1_000_000
