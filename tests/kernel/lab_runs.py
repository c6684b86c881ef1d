"""The workloads in the lab, and what they say of themselves.

Owns: starting one, and the times that its time-outs take. Must not know: any fault, or agents.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.lab import topology
from ebpfdns.lab.faults import Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

NOT_POSSIBLE_HERE = 3
DEADLINE_S = 30
IMPATIENT = "timeout:1 attempts:1"  # what is slow takes a second, or three
PATIENT = "timeout:15 attempts:1"  # what is quick ends long before a single time-out
SLOW_MS, QUICK_MS = 900, 10_000


def start(sandbox: Sandbox, argv: list[Any]) -> subprocess.Popen[str]:
    ready_file, go_file = sandbox.new_file("ready"), sandbox.new_file("go")
    command = [*argv, "--ready-file", ready_file, "--go-file", go_file]
    process = sandbox.popen(command, ready_file=ready_file, stdout=subprocess.PIPE, text=True)
    go_file.touch()
    return process


def run(sandbox: Sandbox, programs: dict[str, Path], name: str, *arguments: object) -> dict[str, Any]:
    if name not in programs:
        pytest.skip(f"{name} cannot be built here")
    process = start(sandbox, [programs[name], *arguments])
    output = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 0, output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def serving(*script: dict[str, Any], listen: tuple[str, ...] = (topology.SERVER_1,)) -> Fault:
    return Fault(name="own", sentence="The test's own.", servers=(ServerPlan(listen, script),))
