"""`attach --format pretty` on a pseudo terminal: one block, updated in place, and then a clean screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from typing import TYPE_CHECKING

import pyte
import pytest
from agent import environment
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS
from ebpfdns.lab.namespace import end, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

DEADLINE_S = 60
ROWS, COLUMNS = 45, 110


class Window:
    """A terminal window with the agent in it, as its foreground job."""

    def __init__(self, *words: object, ready_file: Path, **variables: str) -> None:
        self._reader, fd = os.openpty()
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.screen = pyte.HistoryScreen(COLUMNS, ROWS, history=1000)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.raw = b""
        argv = [
            "setsid",
            "--ctty",
            sys.executable,
            "-P",
            "-m",
            "ebpfdns",
            *map(str, words),
            "--ready-file",
            str(ready_file),
        ]
        self.agent = subprocess.Popen(
            argv,
            stdin=fd,
            stdout=fd,
            stderr=fd,
            env=environment() | {"TERM": "xterm-256color"} | variables,
        )
        os.close(fd)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        wait_for_file(ready_file, self.agent)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while data := os.read(self._reader, 1 << 16):
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)

    def type(self, keys: bytes) -> None:
        """As somebody at the keyboard."""
        os.write(self._reader, keys)

    def lines(self) -> list[str]:
        with self._lock:
            top = ["".join(row[at].data for at in range(COLUMNS)) for row in self.screen.history.top]
            return [line.rstrip() for line in [*top, *self.screen.display] if line.strip()]

    def wait_for(self, is_seen: Callable[[list[str]], bool]) -> list[str]:
        deadline = time.monotonic() + DEADLINE_S
        while not is_seen(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            time.sleep(0.01)
        return self.lines()

    def end(self) -> list[str]:
        """After the agent's end: everything that stands on the screen."""
        assert self.agent.wait(DEADLINE_S) == 0, "\n".join(self.lines())
        self._thread.join()
        return self.lines()

    def close(self) -> None:
        end(self.agent)
        self._thread.join()
        os.close(self._reader)


@pytest.fixture
def hanging(sandbox: Sandbox, programs: dict[str, Path]) -> Iterator[Program]:
    """A program whose lookup will get no answer for a long time."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, log=False):
        yield Program(sandbox, [binary, "--name", "www.lab.test"])


def heads(lines: list[str]) -> list[str]:
    """The headlines of blocks about the lookup."""
    return [line for line in lines if "lookup of www.lab.test" in line]


def ages(line: str) -> float:
    return float(line.rsplit(", ", 1)[1].removesuffix(" s"))


@pytest.mark.parametrize("way", ["ctrl-c", "SIGTERM"])
def test_a_block_is_updated_in_place_until_the_end(hanging: Program, tmp_path: Path, way: str) -> None:
    """One block whose age goes on; after Ctrl-C or SIGTERM it stands there once, with a cursor below it."""
    words = ("attach", "--pid", hanging.pid, "--stuck-after", "300ms", "--format", "pretty")
    window = Window(*words, ready_file=tmp_path / "ready")
    with contextlib.closing(window):
        hanging.go()
        [first] = heads(window.wait_for(lambda lines: bool(heads(lines))))
        later = window.wait_for(lambda lines: ages(heads(lines)[0]) > ages(first) + 1)
        assert len(heads(later)) == 1
        if way == "ctrl-c":
            window.type(b"\x03")
        else:
            window.agent.send_signal(signal.SIGTERM)
        lines = window.end()
    assert len(heads(lines)) == 1
    assert "ns_silent" in "\n".join(lines)
    [summary] = [line for line in lines if "1 stuck, 1 in flight" in line]
    assert lines.index(heads(lines)[0]) < lines.index(summary)
    assert (window.screen.cursor.hidden, window.screen.cursor.x) == (False, 0)
    assert b"\x1b[?25l" not in window.raw
    assert b"\x1b[1;31m" in window.raw
    hanging.process.kill()


def test_a_block_stays_with_its_end(hanging: Program, tmp_path: Path) -> None:
    """When the lookup fails its block says so, where it stood; without colours when NO_COLOR is set."""
    words = ("attach", "--pid", hanging.pid, "--stuck-after", "300ms", "--format", "pretty")
    window = Window(*words, ready_file=tmp_path / "ready", NO_COLOR="1")
    with contextlib.closing(window):
        hanging.go()
        window.wait_for(lambda lines: bool(heads(lines)))
        lines = window.end()
    [head] = heads(lines)
    assert head.startswith("✗")
    assert head.endswith("EAI_AGAIN")
    assert any("(confirmed)" in line for line in lines)
    assert b"\x1b[0m" not in window.raw
