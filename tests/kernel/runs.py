"""`ebpfdns run` as a user starts it, in a sandbox: the command, its streams, and the lines about it.

Owns: starting it and reading what it left. Must not know: what a test expects.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agent
import promises

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

DEADLINE_S = 90


@dataclass(frozen=True)
class Ran:
    """How it ended."""

    code: int
    stdout: bytes
    stderr: str
    lines: list[Line]

    def of(self, event: str) -> list[Line]:
        """The lines of one kind."""
        return agent.of(self.lines, event)

    @property
    def lookups(self) -> dict[str, int]:
        """The last counters."""
        found: dict[str, int] = self.lines[-1]["stats"]["lookups"]
        return found


def start(sandbox: Sandbox, words: list[object], **options: Any) -> subprocess.Popen[Any]:
    """`ebpfdns run` with these words behind it."""
    argv = [sys.executable, "-P", "-m", "ebpfdns", "run", *map(str, words)]
    pipe = subprocess.PIPE
    options = {
        "stdout": pipe,
        "stderr": pipe,
        "stdin": subprocess.DEVNULL,
        "env": agent.environment(),
    } | options
    return sandbox.popen(argv, **options)


def run(sandbox: Sandbox, *words: object, command: list[object], **options: Any) -> Ran:
    """The same to its end, with its lines in a file."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lines.jsonl"
        process = start(sandbox, ["--output", output, *words, "--", *command], **options)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        texts = output.read_text().splitlines() if output.exists() else []
    lines = [json.loads(text) for text in texts]
    if lines:
        promises.check(lines, was_stopped=True)
    return Ran(process.returncode, stdout or b"", (stderr or b"").decode(), lines)
