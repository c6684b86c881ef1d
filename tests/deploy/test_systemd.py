"""The systemd unit and its log rotation, checked by systemd's and logrotate's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pods
import pytest

from ebpfdns.observe import programs

SYSTEMD = pods.ROOT / "deploy/systemd"
UNIT = SYSTEMD / "ebpfdns@.service"
#: `systemd-analyze security` gives 0 (nothing allowed) to 100 (everything); it calls 50 and more "medium".
EXPOSURE_LIMIT = 25


@pytest.fixture
def analyze():
    """The path of systemd-analyze, or a skip that says where it comes from."""
    path = shutil.which("systemd-analyze")
    if path is None:
        pytest.skip("systemd-analyze is missing: it is in Debian's package systemd")
    return path


@pytest.fixture
def unit(tmp_path):
    """A copy of the unit whose command exists here."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/ebpfdns", "/bin/true"))
    return copy


def settings() -> dict[str, str]:
    """The unit's settings; a later line of the same name wins."""
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def test_systemd_accepts_every_setting(analyze, unit):
    """`systemd-analyze verify` has nothing to say about the unit."""
    result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_systemd_accepts_the_drop_in(analyze, unit):
    """The unit with the drop-in for older kernels is as valid, and a mistake in it would be noticed."""
    drop_in = unit.with_name(f"{UNIT.name}.d") / "with-sys-admin.conf"
    drop_in.parent.mkdir()
    text = (SYSTEMD / drop_in.name).read_text()
    for addition, is_good in (("", True), ("NoSuchSetting=yes\n", False)):
        drop_in.write_text(text + addition)
        result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
        assert (result.stderr == "") is is_good, result.stderr


def test_the_agent_may_write_where_it_keeps_its_programs():
    """The unit gives it the directory of compiled programs, so that only the first start compiles."""
    assert Path("/var/cache") / settings()["CacheDirectory"] == programs.CACHE


def test_exposure_stays_low(analyze, unit):
    """Systemd's own security review of the unit stays below the limit."""
    command = [analyze, "security", "--offline=yes", f"--threshold={EXPOSURE_LIMIT}", "--no-pager", unit]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_errors_that_stay_are_not_tried_again():
    """Exit codes that a restart cannot mend (usage, this host cannot, no such process) do not restart it."""
    assert settings()["Restart"] == "on-failure"
    assert settings()["RestartPreventExitStatus"].split() == ["2", "3", "4"]


def test_reload_is_the_signal_that_reopens_the_output():
    """`systemctl reload` sends SIGHUP, on which the contract says the output file is opened again."""
    assert settings()["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_rotation_covers_what_the_unit_writes():
    """The logrotate pattern matches the unit's --output, and it reloads the unit instead of copying."""
    rotation = (SYSTEMD / "logrotate.conf").read_text()
    assert "${LOGS_DIRECTORY}/%i.jsonl" in settings()["ExecStart"]
    assert f"/var/log/{settings()['LogsDirectory']}/*.jsonl {{" in rotation
    assert "systemctl reload 'ebpfdns@*.service'" in rotation
    assert not re.search(r"^\s*copytruncate", rotation, re.MULTILINE)


def test_logrotate_accepts_the_snippet(tmp_path):
    """`logrotate --debug` reads the snippet without an error."""
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if logrotate is None:
        pytest.skip("logrotate is missing: it is in Debian's package of that name")
    snippet = tmp_path / "ebpfdns"
    snippet.write_text((SYSTEMD / "logrotate.conf").read_text().replace("/var/log/ebpfdns", str(tmp_path)))
    snippet.chmod(0o644)
    command = [logrotate, "--debug", "--state", tmp_path / "state", snippet]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "error" not in result.stderr
