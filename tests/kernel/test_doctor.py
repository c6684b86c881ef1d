"""`ebpfdns doctor` on this very host: with all rights, and with none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ebpfdns.commands.tracepoint_checks import SYSCALLS, TRACEPOINTS

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

PACKAGE_PARENT = Path(__file__).parents[2] / "agent"
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all")
WITHOUT_TRACEFS = ("unshare", "--mount", "/bin/sh", "-c", 'umount -a -t tracefs,debugfs; exec "$@"', "sh")


def doctor(*arguments: str, through: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*through, sys.executable, "-m", "ebpfdns", "doctor", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def statuses(answer: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in answer["checks"]}


def test_root_can_attach_here() -> None:
    """As root, where these tests run, attach can do its job: the doctor ends with 0, and says so."""
    result = doctor()
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].startswith("attach can do its job here")


def test_every_tracepoint_has_its_line() -> None:
    """Each tracepoint that a probe uses is looked for in this kernel, and found."""
    found = statuses(json.loads(doctor("--format", "json").stdout))
    names = [f"tracepoint syscalls/{call}" for call in SYSCALLS] + [
        f"tracepoint {name}" for name in TRACEPOINTS
    ]
    assert {name: found.get(name) for name in names} == dict.fromkeys(names, "ok")


def test_the_json_says_what_the_text_says() -> None:
    """Both formats have the same checks in the same order, and each check that is not ok has a remedy."""
    answer = json.loads(doctor("--format", "json").stdout)
    text = doctor().stdout
    assert answer["can_attach"] is True
    assert answer["host"]["kernel"] == os.uname().release
    positions = [text.index(f"{check['name']} ") for check in answer["checks"]]
    assert positions == sorted(positions)


def test_the_format_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like every option, this one is also read from its variable."""
    monkeypatch.setenv("EBPFDNS_DOCTOR_FORMAT", "json")
    assert json.loads(doctor().stdout)["can_attach"] is True


@pytest.mark.usefixtures("nobody_can_run_us")
def test_nobody_is_told_what_is_missing() -> None:
    """Without any rights everything that can be found out is still printed; the end is 3, with what to do."""
    result = doctor("--format", "json", through=NOBODY)
    answer = json.loads(result.stdout)
    found = statuses(answer)
    assert result.returncode == 3
    assert answer["can_attach"] is False
    assert found["rights to trace"] == "missing"
    assert (found["kernel"], found["bcc"], found["lookup functions"]) == ("ok", "ok", "ok")
    assert all(check["remedy"] for check in answer["checks"] if check["status"] == "missing")
    assert result.stderr.startswith("ebpfdns: attach cannot work here: rights to trace")
    assert "try: sudo" in result.stderr


def test_tracefs_that_can_be_mounted_is_no_obstacle() -> None:
    """Where nobody has mounted tracefs the doctor says so, and how; attach can still do its job."""
    result = doctor("--format", "json", through=WITHOUT_TRACEFS)
    tracefs = next(check for check in json.loads(result.stdout)["checks"] if check["name"] == "tracefs")
    assert tracefs["status"] == "degraded"
    assert tracefs["remedy"] == "mount -t tracefs nodev /sys/kernel/tracing"


def test_help_says_what_the_exit_code_means() -> None:
    """A script can rely on 0 and 3, and the help says so."""
    help_text = " ".join(doctor("--help").stdout.split())
    assert "Ends with 0 when `ebpfdns attach` can do its job here, 3 when it cannot." in help_text
