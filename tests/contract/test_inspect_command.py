"""`ebpfdns inspect` at the command line: what it needs no rights and no kernel for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema

from ebpfdns.publish.schema.inspection import schema

AGENT = Path(__file__).parents[2] / "agent"
NO_SUCH_PID = 4194304


def inspect(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ebpfdns", "inspect", *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(AGENT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_a_process_of_ones_own() -> None:
    """One's own process can be looked at: 0, and, as stdout is no terminal, the promised object."""
    done = inspect("--pid", os.getpid())
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    jsonschema.validate(found, schema())
    assert found["process"]["pid"] == os.getpid()
    assert found["resolver"]["go"] is False
    assert os.getpid() in {thread["tid"] for thread in found["threads"]}


def test_for_people_there_is_no_json() -> None:
    """--format pretty is the same in words, and without colours where there is no terminal."""
    done = inspect("--pid", os.getpid(), "--format", "pretty")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"(pid {os.getpid()})" in done.stdout
    for title in ("How it resolves names", "resolv.conf", "What its threads do"):
        assert f"\n{title}\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_nobody_has_this_pid() -> None:
    """No such target: 4, a message on stderr, nothing on stdout."""
    done = inspect("--pid", NO_SUCH_PID)
    assert (done.returncode, done.stdout) == (4, "")
    assert f"there is no process with pid {NO_SUCH_PID}" in done.stderr


def test_no_pid_is_a_usage_error() -> None:
    """A command line that names no process, or none that can be, ends with 2."""
    for words in ((), ("--pid", "0"), ("--pid", "x")):
        done = inspect(*words)
        assert (done.returncode, done.stdout) == (2, "")
