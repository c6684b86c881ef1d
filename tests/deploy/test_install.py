"""`make install` as a user meets it: the command works from anywhere, can come twice, and goes away again."""

from __future__ import annotations

import os
import subprocess

import pods
import pytest

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="installing needs root: sudo make deploy-tests"),
]


@pytest.fixture
def setup(tmp_path):
    """A function that runs deploy/setup.sh for an installation below tmp_path."""
    places = {"EBPFDNS_PREFIX": str(tmp_path / "prefix"), "EBPFDNS_BIN": str(tmp_path / "bin")}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [pods.ROOT / "deploy/setup.sh", *arguments]
        return subprocess.run(command, env=os.environ | places, capture_output=True, text=True, check=False)

    return run


def ebpfdns(tmp_path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the installed command as sudo would: another directory, nothing of this environment."""
    command = [tmp_path / "bin/ebpfdns", *arguments]
    return subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=False)


def test_install_twice_and_uninstall(setup, tmp_path):
    """The installed command loads its BPF programs, a second installation keeps it, nothing stays after."""
    for _ in range(2):
        installed = setup("install")
        assert installed.returncode == 0, installed.stderr
        assert ebpfdns(tmp_path, "--version").stdout.startswith("ebpfdns, version ")
    loaded = ebpfdns(tmp_path, "attach", "--pid", str(os.getpid()), "--dry-run")
    assert loaded.returncode == 0, loaded.stderr
    assert setup("uninstall").returncode == 0
    assert not any((tmp_path / "bin").iterdir())
    assert not (tmp_path / "prefix").exists()


def test_what_is_not_ours_is_left_alone(setup, tmp_path):
    """Neither install nor uninstall touches a command or a directory that something else put there."""
    other_command, other_file = tmp_path / "bin/ebpfdns", tmp_path / "prefix/file"
    for path in (other_command, other_file):
        path.parent.mkdir()
        path.write_text("another program")
        assert setup("install").returncode == 1
        assert setup("uninstall").returncode == 0
        assert path.read_text() == "another program"


def test_packages_that_are_here_are_not_asked_for(setup):
    """Nothing is said and no package manager started where every package is installed."""
    setup("packages")
    result = setup("packages")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
