"""A program in a sandbox: it waits for the test's go, and gives its own account at the end.

Owns: its start, its go file, its result. Must not know: the agent, faults.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

DEADLINE_S = 60.0
#: Words for `sh -c`, which `Program` gives its files behind them: ready, then no further before the go.
UNTIL_GO = ': > "$2"; while [ ! -e "$4" ]; do sleep 0.01; done; '


class Program:
    """Started, set up, and waiting for `go`."""

    def __init__(
        self, sandbox: Sandbox, argv: Sequence[object], *, tail: Sequence[object] = (), **options: Any
    ) -> None:
        ready_file, self._go_file = sandbox.new_file("ready"), sandbox.new_file("go")
        words = [str(word) for word in argv]
        command = [*words, "--ready-file", str(ready_file), "--go-file", str(self._go_file)]
        command += [str(word) for word in tail]
        options = {"stdout": subprocess.PIPE, "text": True} | options
        self.process = sandbox.popen(command, ready_file=ready_file, **options)

    @property
    def pid(self) -> int:
        """Of the process, as the agent names it."""
        return self.process.pid

    def go(self) -> None:
        """Let it do what it is for."""
        self._go_file.touch()

    def result(self) -> dict[str, Any]:
        """What it printed last, once it has ended well."""
        output = self.process.communicate(timeout=DEADLINE_S)[0]
        assert self.process.returncode == 0, output
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


def shell(sandbox: Sandbox, commands: str, **options: Any) -> Program:
    """A shell that waits for its go, then runs these commands."""
    return Program(sandbox, ["sh", "-c", UNTIL_GO + commands, "sh"], **options)


def of_this_machine(programs: dict[str, Path], name: str) -> Path:
    """The program, or a skip with the reason that it cannot be built here."""
    import pytest  # noqa: PLC0415 - recordings are made without it

    if name not in programs:
        pytest.skip(f"{name} cannot be built here")
    return programs[name]
