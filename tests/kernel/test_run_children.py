"""`ebpfdns run`: what the command starts is traced too, however short it lives."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from play import again, whole
from program import of_this_machine
from running import run

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from pathlib import Path

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
