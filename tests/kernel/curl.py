"""The real curl, which waits for its URL on a named pipe: fully started before it looks anything up.

Owns: its start, its go. Must not know: the agent, faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Curl:
    """Waits for `go`."""

    def __init__(self, sandbox: Sandbox, *words: str) -> None:
        self._pipe = sandbox.new_file("config")
        os.mkfifo(self._pipe)
        argv = ["curl", "-q", "-s", *words, "-K", str(self._pipe)]
        self.process = sandbox.popen(argv, stdout=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """Of the process, as the agent names it."""
        return self.process.pid

    def go(self, url: str) -> None:
        """Let it fetch this."""
        with self._pipe.open("w", encoding="utf-8") as pipe:  # opened only once curl reads
            pipe.write(f'url = "{url}"\n')
