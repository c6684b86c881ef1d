"""`ebpfdns demo` as a user runs it: real faults, the real agent, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import packages
import pytest
from click.testing import CliRunner

from ebpfdns.commands import demo
from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab import stage
from ebpfdns.lab.behind_faults import BEHIND_FAULTS
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import PACKAGE_PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="BPF and namespaces need root"),
]

MARK = "DEMO_TEST_MARK"  # children inherit it: who still has it afterwards was left behind
DEADLINE_S = 90
AT_ONCE = 3
#: They need something that may not be there.
LACKING = set() if packages.modules() else {"resolved_ipc_stall", "avahi_stall", "mdns_timeout"}
LACKING |= set() if shutil.which("node") else {"threadpool_starved"}
LACKING |= {fault.name for fault in BEHIND_FAULTS if not packages.has_daemon(fault)}
CONNECTS = [name for name, fault in FAULTS.items() if fault.connect_port]
LEFT_OUT = {*CONNECTS, *LACKING}
STUCK = [name for name in FAULTS if stage.plan_for(FAULTS[name]).gets_stuck and name not in LEFT_OUT]
QUICK = [name for name in FAULTS if not stage.plan_for(FAULTS[name]).gets_stuck and name not in LACKING]


@dataclass(frozen=True)
class Played:
    """One finished demo."""

    code: int
    text: str
    log: str
    left_behind: list[int]

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == event]


def start(mark: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), MARK: mark}
    environment |= packages.daemons()
    argv = [sys.executable, "-m", "ebpfdns", "demo", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process: subprocess.Popen[str], mark: str, already_read: str = "") -> Played:
    text, log = process.communicate(timeout=DEADLINE_S)
    return Played(process.returncode, already_read + text, log, left_behind(mark))


def play(*arguments: str) -> Played:
    mark = uuid.uuid4().hex
    return finish(start(mark, *arguments), mark)


def left_behind(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
        except OSError:  # it is gone
            continue
    return found


@pytest.fixture(scope="module")
def played() -> Iterator[dict[str, Future[Played]]]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(play, name) for name in (*STUCK, *CONNECTS, *QUICK)}


@pytest.mark.parametrize("name", STUCK)
def test_stuck_lookup(played: dict[str, Future[Played]], name: str) -> None:
    """A fault that makes lookups hang is reported while it lasts, with its cause, and closed by its id."""
    shown = played[name].result()
    assert shown.code == 0, shown.log + shown.text
    # Beside the lookup that the fault is about there may be the one that it waits for.
    expected = FAULTS[name].expected_cause
    (ended,) = (line for line in shown.lines("lookup") if line["cause"]["id"] == expected)
    stuck = [line for line in shown.lines("lookup_stuck") if line["lookup"]["id"] == ended["lookup"]["id"]]
    assert [line["lookup"]["update"] for line in stuck] == list(range(1, len(stuck) + 1))
    least_ms = 50 if stage.plan_for(FAULTS[name]).stuck_after else 1000
    if stuck[0]["lookup"]["since"] == "attach":  # the age of one in a child that is not traced is not known
        assert least_ms <= stuck[0]["lookup"]["elapsed_ms"] < (ended["lookup"]["duration_ms"] or 1e9)
    assert shown.left_behind == []


@pytest.mark.parametrize("name", CONNECTS)
def test_stuck_connect(played: dict[str, Future[Played]], name: str) -> None:
    """When what follows hangs, the lookup is told as healthy and the connect as what is stuck."""
    shown = played[name].result()
    assert shown.code == 0, shown.log + shown.text
    (lookup,), stuck = shown.lines("lookup"), shown.lines("connect_stuck")
    assert lookup["lookup"]["status"] == "ok"
    assert [line["connect"]["update"] for line in stuck if "update" in line["connect"]] in ([], [1, 2])
    assert stuck[-1]["cause"]["id"] == FAULTS[name].expected_cause
    assert {line["connect"]["lookup"]["id"] for line in stuck} == {lookup["lookup"]["id"]}
    assert stuck[0]["connect"]["id"] in {line["connect"]["id"] for line in shown.lines("connect")}
    assert shown.left_behind == []


@pytest.mark.parametrize("name", QUICK)
def test_quick_lookup(played: dict[str, Future[Played]], name: str) -> None:
    """A fault that makes lookups fail at once, or no fault, shows one ended lookup and nothing stuck."""
    shown = played[name].result()
    assert shown.code == 0, shown.log + shown.text
    (ended,) = shown.lines("lookup")
    assert ended["lookup"]["status"] == ("ok" if name in ("healthy", "tcp") else "failed")
    assert (ended.get("cause") or {}).get("id") == FAULTS[name].expected_cause
    assert shown.lines("lookup_stuck") == []
    assert shown.left_behind == []


def test_only_lines() -> None:
    """With --format json each line of the output is an event line, as for any other reader."""
    shown = play("nxdomain", "--format", "json")
    assert shown.code == 0, shown.log
    kinds = [json.loads(line)["event"] for line in shown.text.splitlines()]
    assert kinds[0] == "target"
    assert kinds[-1] == "stats"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_stopped_midway(name: str) -> None:
    """A demo that is stopped while the lookup is stuck ends normally and takes everything with it."""
    mark = uuid.uuid4().hex
    process = start(mark, "silent", "--format", "json")
    assert process.stdout is not None
    read = ""
    while '"lookup_stuck"' not in read:
        line = process.stdout.readline()
        assert line, finish(process, mark, read)
        read += line
    process.send_signal(signal.Signals[name])
    shown = finish(process, mark, read)
    assert shown.code == 0, shown.log
    assert shown.left_behind == []


def test_a_reader_that_goes_away() -> None:
    """A demo whose reader has seen enough ends quietly and takes everything with it."""
    mark = uuid.uuid4().hex
    process = start(mark, "silent")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(DEADLINE_S) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert left_behind(mark) == []


def test_a_failing_agent_passes_its_code_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the agent cannot start, its own message stands on stderr and its exit code is the demo's."""
    program = "import sys; sys.exit(3)"
    monkeypatch.setattr(stage, "AGENT", (sys.executable, "-c", program))
    shown = CliRunner().invoke(demo.command, ["silent"], standalone_mode=False)
    assert shown.return_value == 3
    assert "Every probe is live" not in shown.output


def test_an_agent_that_says_nothing_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the agent ends well but has reported nothing, the demo says so and fails."""
    program = "import sys, pathlib; pathlib.Path(sys.argv[sys.argv.index('--ready-file') + 1]).touch()"
    monkeypatch.setattr(stage, "AGENT", (sys.executable, "-c", program))
    error = CliRunner().invoke(demo.command, ["nxdomain"], standalone_mode=False).exception
    assert isinstance(error, EbpfdnsError)
    assert "no lookup" in str(error)
