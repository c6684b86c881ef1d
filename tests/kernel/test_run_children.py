"""`ebpfdns run`: what the command starts is traced too, however short it lives."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from play import again, whole
from program import of_this_machine
from runs import run

from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe import cgroups, target

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]


@again
def test_each_of_many_short_children_is_counted(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """211 children in a row, one lookup each: all are told, by call, name and program."""
    binary = of_this_machine(programs, "lookup-glibc")
    one = f"{binary} --name c$i.lab.test --threads 0 >/dev/null"
    script = f"i=0; while [ $i -lt 211 ]; do {one}; i=$((i + 1)); done"
    with FAULTS["healthy"].setup(sandbox, log=False):
        ran = run(sandbox, "--all", command=["sh", "-c", script])
    assert ran.code == 0
    whole(ran.lines)
    told = Counter((line["lookup"]["name"], line["lookup"]["api"]) for line in ran.of("lookup"))
    assert told == {(f"c{number}.lab.test", "getaddrinfo"): 1 for number in range(211)}
    assert {line["process"]["executable"]["name"] for line in ran.of("lookup")} == {"lookup-glibc"}
    assert ran.lookups["started"] == ran.lookups["ok"] == 211
    assert ran.lines[-1]["stats"]["lost"] == {}


def test_a_thousand_children_in_a_row(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After 1,009 short children a lookup in a pipeline is still seen, and nothing is lost."""
    binary = of_this_machine(programs, "lookup-glibc")
    script = "i=0; while [ $i -lt 1009 ]; do /bin/true; i=$((i + 1)); done; "
    script += f"{binary} --name www.lab.test --threads 0 | cat | wc -l"
    with FAULTS["healthy"].setup(sandbox, log=False):
        ran = run(sandbox, "--all", command=["sh", "-c", script])
    assert (ran.code, ran.stdout.strip()) == (0, b"1")
    assert ran.lookups["ok"] == 1
    assert ran.lines[-1]["stats"]["lost"] == {}


def test_without_children_only_the_command_is_traced(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """--no-children: what the command starts is its own business."""
    binary = of_this_machine(programs, "lookup-glibc")
    script = f"{binary} --name child.lab.test >/dev/null; exec {binary} --name own.lab.test"
    with FAULTS["healthy"].setup(sandbox, log=False):
        ran = run(sandbox, "--all", "--no-children", command=["sh", "-c", script])
    assert [line["lookup"]["name"] for line in ran.of("lookup")] == ["own.lab.test"]
    assert ran.code == 0


@again
@pytest.mark.parametrize("flavour", ["musl", "musl-static"])
def test_a_program_that_did_not_exist_is_probed_before_it_begins(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path, flavour: str
) -> None:
    """23 programs that the command makes itself look up at once: all are told by their calls."""
    binary = of_this_machine(programs, f"lookup-{flavour}")
    path = f"{tmp_path}/fresh-$i"
    fresh = f"cp {binary} {path}; {path} --name c$i.lab.test --threads 0 >/dev/null"
    with FAULTS["healthy"].setup(sandbox, log=False):
        script = f"i=0; while [ $i -lt 23 ]; do {fresh}; i=$((i + 1)); done"
        ran = run(sandbox, "--all", command=["sh", "-c", script])
    whole(ran.lines)
    told = {line["lookup"]["name"]: line for line in ran.of("lookup")}
    assert sorted(told) == sorted(f"c{number}.lab.test" for number in range(23))
    assert {line["lookup"]["api"] for line in told.values()} == {"getaddrinfo"}
    assert {line["process"]["executable"]["path"] for line in told.values()} == {
        f"{tmp_path}/fresh-{number}" for number in range(23)
    }
    missing = {text for line in ran.of("target") for text in line["target"]["coverage"]["missing"]}
    assert target.LATE not in missing
    assert ran.lookups["started"] == ran.lookups["ok"] == 23


def test_what_was_not_held_is_told_as_late(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path
) -> None:
    """--no-hold: a program with its own libc is probed when it already runs, and its coverage says so."""
    binary = of_this_machine(programs, "lookup-musl-static")
    several = "--threads 0 --count 101 --repeat-delay-us 5000"
    with FAULTS["healthy"].setup(sandbox, log=False):
        script = f"cp {binary} {tmp_path}/fresh; {tmp_path}/fresh --name www.lab.test {several}; true"
        ran = run(sandbox, "--all", "--no-hold", command=["sh", "-c", script])
    found = [line for line in ran.of("target") if line["process"]["executable"]["name"] == "fresh"]
    assert target.LATE in found[-1]["target"]["coverage"]["missing"]
    assert "getaddrinfo" in {line["lookup"]["api"] for line in ran.of("lookup")}


def test_nobody_else_is_held(sandbox: Sandbox) -> None:
    """The command has mounts of its own, and shares its network, pids and users with everybody."""
    spaces = "for space in mnt net pid user uts ipc; do readlink /proc/self/ns/$space; done"
    folder = Path(f"/proc/{sandbox.holder_pid}/ns")
    ours = [str((folder / space).readlink()) for space in ("mnt", "net", "pid", "user")]
    held = run(sandbox, command=["sh", "-c", spaces]).stdout.decode().split()
    free = run(sandbox, "--no-hold", command=["sh", "-c", spaces]).stdout.decode().split()
    assert free[:4] == ours
    assert held[0] != ours[0]
    assert held[1:] == free[1:]


def test_a_child_that_is_moved_to_another_cgroup_keeps_its_packets(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """As by systemd-run or a container runtime: moved, then another program; its questions are still seen."""
    mount = cgroups.cgroup2_mount()
    if mount is None:
        pytest.skip("there is no cgroup v2 tree here")
    binary, place = of_this_machine(programs, "wire-musl-stripped"), mount.place / f"moved-{os.getpid()}"
    place.mkdir()
    try:
        with FAULTS["healthy"].setup(sandbox, log=False):
            move = f"echo $$ > {place}/cgroup.procs; exec {binary} --name www.lab.test --count 5"
            ran = run(sandbox, "--all", command=["sh", "-c", f"sh -c '{move}'; true"])
    finally:
        place.rmdir()
    assert ran.lines[-1]["stats"]["queries"] == {"sent": 5, "answered": 5, "unanswered": 0}
    assert {line["lookup"]["name"] for line in ran.of("lookup")} == {"www.lab.test"}
