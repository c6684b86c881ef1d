"""Libraries that were deleted or replaced, and targets in mount, network and pid namespaces of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

IMPATIENT = "timeout:1 attempts:1"
EVERY_LIBC = pytest.mark.parametrize("libc", ["glibc", "musl"])


def loader_and_libraries(binary: Path) -> list[Path]:
    """What the dynamic loader of this program maps, the loader itself first."""
    loader = re.search(r"interpreter: (\S+)\]", output_of("readelf", "--program-headers", binary))
    assert loader is not None
    listed = output_of(loader[1], "--list", binary)
    found = [Path(loader[1]), *map(Path, re.findall(r"=> (/\S+)", listed))]
    return list(dict.fromkeys(path for path in found if path.name != "linux-vdso.so.1"))


def output_of(*argv: object) -> str:
    return subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=True).stdout


def copied(binary: Path, folder: Path) -> list[object]:
    """The command that runs a copy of the program with copies of its loader and libraries."""
    loader, *libraries = loader_and_libraries(binary)
    for path in (loader, *libraries, binary):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o755)
    return [folder / loader.name, "--library-path", folder, folder / binary.name]


def mapped_files(pid: int) -> set[str]:
    """The files that a process has mapped, as the kernel names them."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return {line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/")}


def trace_a_stuck_lookup(sandbox: Sandbox, program: Program, pid: int, *words: object) -> list[Line]:
    """One lookup at a silent server, from its stuck line to its end."""
    agent = Agent("attach", "--pid", pid, "--stuck-after", "250ms", *words)
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT), agent:
        program.go()
        assert program.result()["failed"] == 1
        return agent.finish()


def check_seen(lines: list[Line], pid: int, libc: str) -> None:
    """The lookup was seen as a call of the library, with its two questions."""
    stuck = of(lines, "lookup_stuck")[0]
    assert stuck["process"]["pid"] == pid
    assert stuck["lookup"]["api"] == "getaddrinfo"
    assert stuck["lookup"]["resolver"] == libc
    assert stuck["lookup"]["name"] == "www.lab.test"
    assert {query["server"]["address"] for query in stuck["lookup"]["queries"]} == {topology.SERVER_1}
    assert stuck["cause"]["id"] == "ns_silent"
    assert only(lines, "lookup")["lookup"]["error"]["type"] == "EAI_AGAIN"
    coverage = of(lines, "target")[0]["target"]["coverage"]
    assert coverage["libc"].startswith(libc)
    assert coverage["missing"] == []
    assert lines[-1]["stats"]["lost"] == {}


@EVERY_LIBC
@pytest.mark.parametrize("is_replaced", [False, True], ids=("deleted", "replaced"))
def test_a_libc_that_is_gone_from_the_disk_is_traced(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path, libc: str, *, is_replaced: bool
) -> None:
    """A package upgrade under a running program: the old file, alive in its mappings, is the one probed."""
    command = copied(of_this_machine(programs, f"lookup-{libc}"), tmp_path)
    program = Program(sandbox, [*command, "--name", "www.lab.test"])
    for path in tmp_path.iterdir():
        fresh = tmp_path / "fresh"
        fresh.write_bytes(b"another version")
        fresh.rename(path)
        if not is_replaced:
            path.unlink()
    assert [path for path in mapped_files(program.pid) if path.endswith("(deleted)")]
    check_seen(trace_a_stuck_lookup(sandbox, program, program.pid), program.pid, libc)


def only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@EVERY_LIBC
def test_a_target_with_libraries_that_only_it_can_see_is_traced(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path, libc: str
) -> None:
    """In mount and pid namespaces of its own, libc in a tmpfs nobody else sees: its calls are probed."""
    binary = of_this_machine(programs, f"lookup-{libc}")
    source, place = tmp_path / "source", tmp_path / "place"
    for folder in (source, place):
        folder.mkdir()
    copied(binary, source)
    loader = loader_and_libraries(binary)[0].name
    script = (
        f"mount -t tmpfs none {place} && cp {source}/* {place} && "
        f'exec {place}/{loader} --library-path {place} {place}/{binary.name} "$@"'
    )
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"]
    program = Program(sandbox, [*alone, "--name", "www.lab.test"])
    pid = only_child(program.pid)
    assert list(place.iterdir()) == []
    lines = trace_a_stuck_lookup(sandbox, program, pid)
    check_seen(lines, pid, libc)
    process = of(lines, "lookup_stuck")[0]["process"]
    assert (process["pid"], process["vpid"]) == (pid, 1)


def test_a_target_in_another_network_asks_other_servers(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Two targets in two networks with equal addresses: each line tells of its own, only one is stuck."""
    binary = of_this_machine(programs, "lookup-glibc")
    argv = [binary, "--name", "www.lab.test", "--family", "inet"]
    silent = FAULTS["silent"].setup(sandbox, options=IMPATIENT)
    with Sandbox() as other, FAULTS["healthy"].setup(other), silent:
        stuck, well = Program(sandbox, argv), Program(other, argv)
        words = ("--pid", stuck.pid, "--pid", well.pid, "--all", "--stuck-after", "250ms")
        with Agent("attach", *words) as agent:
            for program in (stuck, well):
                program.go()
            assert (stuck.result()["failed"], well.result()["ok"]) == (1, 1)
            lines = agent.finish()
    assert only(lines, "lookup", stuck.pid)["lookup"]["status"] == "failed"
    assert only(lines, "lookup", well.pid)["lookup"]["status"] == "ok"
    assert only(lines, "lookup", well.pid)["lookup"]["addresses"] == [topology.WEB]
    assert of(lines, "lookup_stuck", well.pid) == []
    assert lines[-1]["stats"]["queries"] == {"sent": 2, "answered": 1, "unanswered": 1}
