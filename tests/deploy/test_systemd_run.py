"""The unit under a real systemd, process 1 of a container: started, reloaded and stopped as by an admin."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import containers
import debian_root
import oci
import pods
import pytest
import running

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

UNITS = pods.ROOT / "deploy/systemd"
NAME = "stuck.example.test"


@pytest.fixture
def tree(made_once):
    """The tree of the other tests, with systemd in it."""
    assert made_once
    try:
        return debian_root.root("systemd", "procps")
    except debian_root.Unavailable as reason:
        pytest.skip(f"no tree with systemd can be made here: {reason}")


class Machine:
    """A container that systemd runs in, and a target in it."""

    def __init__(self, container: running.Container) -> None:
        self.container = container

    @property
    def root(self) -> Path:
        """Its root directory for us."""
        return Path(f"/proc/{self.container.pid}/root")

    def run(self, *command: str) -> str:
        """Run a command in it; what it printed."""
        line = self.container.runc("exec", self.container.name, *command)
        result = subprocess.run(line, capture_output=True, text=True, check=False)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def await_boot(self) -> None:
        """Wait until systemd takes orders."""
        running.until(lambda: self.container.is_running)
        running.until((self.root / "run/systemd/private").exists)
        self.run("systemctl", "is-system-running", "--wait")

    def lines(self, pid: int) -> list[dict]:
        """What the agent has written so far."""
        path = self.root / f"var/log/ebpfdns/{pid}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def machine(setting, tree, tmp_path):
    """Systemd, with the unit installed."""
    units, programs = tmp_path / "units", tmp_path / "bin"
    for folder in (units, programs):
        folder.mkdir()
    shutil.copy(UNITS / "ebpfdns@.service", units)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/basic.target")
    (programs / "ebpfdns").symlink_to("/opt/ebpfdns/bin/ebpfdns")
    (tmp_path / "resolv.conf").write_text(containers.RESOLV_CONF)
    made = oci.configuration(tree, ["/usr/lib/systemd/systemd"], namespaces=containers.POD)
    oci.give_everything(made)
    # In the container, all of them.
    writable = ("/run", "/run/lock", "/tmp", "/var/tmp", "/var/log", "/var/cache", "/work")  # noqa: S108
    made["mounts"] += [oci.mount(path, "tmpfs", "mode=755") for path in writable]
    made["mounts"] += [
        oci.bind("/sys/fs/cgroup", "/sys/fs/cgroup", read_only=False),
        oci.bind("/sys/kernel/tracing", "/sys/kernel/tracing"),
        oci.bind(units, "/etc/systemd/system"),
        oci.bind(programs, "/usr/local/bin"),
        oci.bind(Path(__file__).with_name("stuck_target.py"), "/work/target.py"),
        oci.bind(tmp_path / "resolv.conf", "/etc/resolv.conf"),
    ]
    made["process"]["env"].append("container=oci")
    found = Machine(setting.start("systemd", made))
    found.await_boot()
    return found


@pytest.fixture
def target(machine):
    """A program in it whose lookups get stuck, with pid `pid` there."""
    command = machine.container.runc("exec", machine.container.name, "/usr/bin/python3", "/work/target.py")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.number = int(process.stdout.readline().removeprefix("pid "))
        yield process
        process.kill()


def test_the_unit_traces_rotates_and_ends(machine, target):
    """Under all its restrictions the agent reports a stuck lookup, reopens its file, and ends cleanly."""
    pid, unit = target.number, f"ebpfdns@{target.number}.service"
    machine.run("systemctl", "start", unit)
    running.until((machine.root / f"run/ebpfdns/{pid}/ready").exists)
    target.stdin.write(f"lookup {NAME}\n")
    target.stdin.flush()
    running.until(lambda: "lookup_stuck" in [line["event"] for line in machine.lines(pid)])
    first, *_ = machine.lines(pid)
    assert (first["target"]["coverage"]["wire"], first["target"]["coverage"]["missing"]) == (True, [])
    stuck = next(line for line in machine.lines(pid) if line["event"] == "lookup_stuck")
    assert (stuck["process"]["pid"], stuck["lookup"]["name"]) == (pid, NAME)
    assert stuck["lookup"]["waiting_on"]["socket"]["server"]["port"] == 53
    assert [path.suffix for path in (machine.root / "var/cache/ebpfdns").iterdir()] == [".programs"]

    log = machine.root / f"var/log/ebpfdns/{pid}.jsonl"
    log.rename(log.with_suffix(".jsonl.1"))
    machine.run("systemctl", "reload", unit)
    running.until(log.exists)

    began = time.monotonic()
    machine.run("systemctl", "stop", unit)
    assert time.monotonic() - began < 10
    assert machine.run("systemctl", "show", "--property=Result,ExecMainStatus", unit).split() == [
        "Result=success",
        "ExecMainStatus=0",
    ]
    assert machine.lines(pid)[-1]["event"] == "stats"


def test_a_process_that_is_not_there_is_not_tried_again(machine):
    """With the pid of no process the unit fails at once, with exit code 4, and systemd leaves it at that."""
    show = ["systemctl", "show", "--property=ActiveState,ExecMainStatus,NRestarts", "ebpfdns@4194303"]
    machine.run("systemctl", "start", "--no-block", "ebpfdns@4194303")
    running.until(lambda: "failed" in machine.run(*show))
    assert sorted(machine.run(*show).split()) == ["ActiveState=failed", "ExecMainStatus=4", "NRestarts=0"]
