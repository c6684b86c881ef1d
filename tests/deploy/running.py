"""A container that runc runs: its standard streams, its pid on this host, what it is waited for, its end.

Owns: runc's command line and the waiting. Must not know: what is in the container.
"""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: How long a container may take to show what a test waits for.
PATIENCE_S = 30


def until(holds: Callable[[], bool]) -> None:
    """Wait for a fact."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)  # between two looks at the fact that is waited for


class Container:
    """A running container: its standard streams, its pid on this host, and its end."""

    def __init__(self, name: str, made: dict[str, Any], home: Path) -> None:
        self.name, self.home = name, home / name
        self.home.mkdir(parents=True)
        (self.home / "config.json").write_text(json.dumps(made, indent=1))
        self.lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        self.errors = (self.home / "stderr").open("w+")
        self.process = subprocess.Popen(
            self.runc("run", "--bundle", self.home, self.name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            subprocess.run(self.runc("kill", self.name, "KILL"), capture_output=True, check=False)
            self.process.wait(PATIENCE_S)
        subprocess.run(self.runc("delete", "--force", self.name), capture_output=True, check=False)
        self.reader.join(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def runc(self, *arguments: object) -> list[str]:
        """A runc command line with this test's own state directory."""
        return ["runc", "--root", str(self.home.parent / "runc"), *map(str, arguments)]

    def read(self) -> None:
        """Move lines from the container's stdout into the queue, and None at its end."""
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def until(self, wanted: Callable[[str], bool]) -> Iterator[str]:
        """Yield the lines up to and with the first wanted one; fail, with the messages, without one."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                line = self.lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.name}: nothing in {PATIENCE_S} s; {self.messages()}") from None
            if line is None:
                raise AssertionError(f"{self.name} ended; {self.messages()}")
            yield line
            if wanted(line):
                return

    def line(self, prefix: str) -> str:
        """What follows a prefix in the first line that has it."""
        *_, last = self.until(lambda line: line.startswith(prefix))
        return last.removeprefix(prefix).strip()

    def say(self, line: str) -> None:
        """Write a line to the container's stdin."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def messages(self) -> str:
        """What the container (or runc) wrote to stderr."""
        return (self.home / "stderr").read_text()

    @property
    def is_running(self) -> bool:
        """Whether its first process has begun; fails when it has ended already."""
        assert self.process.poll() is None, f"{self.name} ended; {self.messages()}"
        state = subprocess.run(self.runc("state", self.name), capture_output=True, text=True, check=False)
        return state.returncode == 0 and json.loads(state.stdout)["status"] == "running"

    @functools.cached_property
    def pid(self) -> int:
        """The container's first process, as this host numbers it."""
        state = subprocess.run(self.runc("state", self.name), capture_output=True, text=True, check=True)
        return json.loads(state.stdout)["pid"]

    def await_start(self, probe: dict[str, Any], ready: Path) -> None:
        """Wait for the file a probe looks for, as long as kubelet would; then the probe must succeed."""
        deadline = time.monotonic() + probe["failureThreshold"] * probe["periodSeconds"]
        while not ready.exists():
            assert self.process.poll() is None, f"{self.name} ended; {self.messages()}"
            assert time.monotonic() < deadline, f"{self.name} is not ready; {self.messages()}"
            time.sleep(0.02)  # between two looks at the fact that is waited for
        command = self.runc("exec", self.name, *probe["exec"]["command"])
        subprocess.run(command, capture_output=True, check=True)

    def stop(self) -> tuple[int, list[str]]:
        """Ask it to end with SIGTERM, as kubelet does; its exit code and the lines not read yet."""
        subprocess.run(self.runc("kill", self.name, signal.Signals.SIGTERM.name), check=True)
        code = self.process.wait(PATIENCE_S)
        self.reader.join(PATIENCE_S)
        return code, [line for line in self.lines.queue if line is not None]
