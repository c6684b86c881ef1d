"""--record: a session of the real agent, and the very same lines from its recording."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from agent import Agent, environment, of
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

SCRIPT = (
    {"suffix": "no.test", "rcode": 3},
    {"suffix": "silent.test", "drop": True},
    {"suffix": "hole.test", "answer": [topology.BLACK_HOLE]},
    GOOD_ANSWER,
)
MIXED = Fault("mixed", "A bit of everything.", servers=(ServerPlan((topology.SERVER_1,), SCRIPT),))


@pytest.fixture
def targets(sandbox: Sandbox, programs: dict[str, Path]) -> Iterator[list[Program]]:
    """Several programs with several fates."""
    glibc, musl = (of_this_machine(programs, f"lookup-{libc}") for libc in ("glibc", "musl"))
    with MIXED.setup(sandbox, options="timeout:1 attempts:2"):
        yield [
            Program(sandbox, argv)
            for argv in (
                [glibc, "--name", "ok.test", "--count", 7],
                [musl, "--name", "no.test", "--threads", 5],
                [glibc, "--name", "silent.test", "--threads", 3, "--unique"],
                [of_this_machine(programs, "lookup-musl-stripped"), "--name", "silent.test"],
                [glibc, "--name-hex", b"a\n\xff.no.test".hex(), "--api", "res_query"],
            )
        ]


def words(targets: list[Program], recording: Path) -> list[object]:
    pids = [word for target in targets for word in ("--pid", target.pid)]
    return ["attach", *pids, "--stuck-after", "300ms", "--record", recording]


def replayed(recording: Path, *options: str) -> bytes:
    argv = [sys.executable, "-P", "-m", "ebpfdns", "replay", str(recording), *options]
    result = subprocess.run(argv, env=environment(), capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout


@pytest.mark.parametrize(
    "options",
    [(), ("--all",), ("--stats-every", "500ms"), ("--all", "--ring-pages", "1")],
    ids=lambda options: " ".join(options) or "plain",
)
def test_a_fresh_session_is_replayed_to_the_byte(
    targets: list[Program], tmp_path: Path, options: tuple[str, ...]
) -> None:
    """What replay prints is what the agent printed: stuck, failed, lost and counted, under any options."""
    recording = tmp_path / "fresh.rec"
    with Agent(*words(targets, recording), *options) as agent:
        for target in targets:
            target.go()
        lines = agent.finish()
    assert {line["event"] for line in lines} >= {"target", "lookup_stuck", "lookup", "stats"}
    assert replayed(recording) == agent.text


def test_people_read_the_same(targets: list[Program], tmp_path: Path) -> None:
    """A recording does not depend on the format: one that was watched as text replays as the same text."""
    recording = tmp_path / "pretty.rec"
    with Agent(*words(targets, recording), "--output", tmp_path / "out", "--format", "pretty") as agent:
        for target in targets:
            target.go()
        assert agent.process.wait(60) == 0
    assert replayed(recording, "--format", "pretty") == (tmp_path / "out").read_bytes()


def test_a_killed_agent_leaves_a_recording(targets: list[Program], tmp_path: Path) -> None:
    """After SIGKILL the recording holds at least what was printed: replay begins with these very lines."""
    recording = tmp_path / "killed.rec"
    with Agent(*words(targets, recording), "--all") as agent:
        for target in targets:
            target.go()
        agent.wait_for(lambda line: line["event"] == "lookup_stuck", count=4)
        agent.process.kill()
        agent.process.wait()
        for reader in agent._readers:
            reader.join()
    assert of(agent.lines, "stats") == []
    assert replayed(recording).startswith(agent.text)


def test_a_recording_is_for_its_owner_only(targets: list[Program], tmp_path: Path) -> None:
    """A recording holds the names that were looked up: nobody else may read it."""
    recording = tmp_path / "private.rec"
    with Agent(*words(targets, recording)) as agent:
        agent.stop()
    assert recording.stat().st_mode & 0o777 == 0o600
