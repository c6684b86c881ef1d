"""Blocks on a real pseudo terminal, seen through an emulated one: updated in place, nothing left over."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import sys
import termios
import threading
import time

import pyte
import pytest

from ebpfdns.publish import terminal as module
from ebpfdns.publish.board import MOST_WAITING
from ebpfdns.publish.examples import examples
from ebpfdns.publish.terminal import Terminal

DEADLINE_S = 20


class Window:
    """A pseudo terminal, and what a person sees in it."""

    def __init__(self, rows=40, columns=100):
        self.reader, self.fd = os.openpty()
        self.screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._lock = threading.Lock()
        self._reads = threading.Event()
        self._reads.set()
        self.resize(rows, columns)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with contextlib.suppress(OSError, ValueError):
            while True:
                self._reads.wait()
                data = os.read(self.reader, 1 << 16)
                with self._lock:
                    self.raw += data
                    self._stream.feed(data)

    def stop_reading(self):
        """As a terminal after Ctrl-S."""
        self._reads.clear()

    def read_on(self):
        self._reads.set()

    def resize(self, rows, columns):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with self._lock:
            self.screen.resize(rows, columns)

    def lines(self):
        """Everything, what has been scrolled away too."""
        with self._lock:
            above = [
                "".join(row[at].data for at in range(self.screen.columns)) for row in self.screen.history.top
            ]
            return [line.rstrip() for line in [*above, *self.screen.display] if line.strip()]

    def wait_for(self, seen):
        """Until somebody looking at it would agree."""
        deadline = time.monotonic() + DEADLINE_S
        while not seen(self.lines()):
            assert time.monotonic() < deadline, "\n".join(self.lines())
            time.sleep(0.01)
        return self.lines()

    def close(self):
        """The writer's end first: then the reader's thread lets go of a number that is used again."""
        with contextlib.suppress(OSError):
            os.close(self.fd)
        self.read_on()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.close(self.reader)


@pytest.fixture
def window():
    found = Window()
    yield found
    found.close()


def stuck(number, elapsed_ms=1000.0):
    event = examples()["lookup_stuck"]
    event["lookup"] |= {"id": f"4242-{number}", "name": f"h{number}.lab.test", "elapsed_ms": elapsed_ms}
    return event


def ended(number):
    event = examples()["lookup"]
    event["lookup"] |= {"id": f"4242-{number}", "name": f"h{number}.lab.test"}
    return event


def healthy(number):
    event = ended(number)
    event["lookup"]["status"] = "ok"
    del event["cause"]
    return event


def heads(lines, name):
    return [line for line in lines if f"lookup of {name}" in line]


def age_s(lines, name):
    """What its block says, which a busy machine may read late; 0: there is none."""
    found = re.search(r", (\d+\.\d) s", "".join(heads(lines, name)))
    return float(found[1]) if found else 0.0


def test_a_block_is_updated_in_place_and_stays(window):
    """One lookup is one block all along: its age goes on, its end replaces it, nothing is left over."""
    terminal = Terminal(window.fd, coloured=True)
    terminal.accept([stuck(1)])
    window.wait_for(lambda lines: 1 <= age_s(lines, "h1.lab.test") < 8)
    terminal.accept([stuck(1, 8000.0), stuck(2)])
    window.wait_for(lambda lines: age_s(lines, "h1.lab.test") >= 8)
    window.wait_for(lambda lines: age_s(lines, "h1.lab.test") >= 9)
    terminal.accept([ended(1)])
    lines = window.wait_for(lambda lines: "failed after" in "".join(heads(lines, "h1.lab.test")))
    assert len(heads(lines, "h1.lab.test")) == 1
    assert len(heads(lines, "h2.lab.test")) == 1
    assert lines.index(heads(lines, "h1.lab.test")[0]) < lines.index(heads(lines, "h2.lab.test")[0])
    terminal.close()


def test_a_closed_screen_is_clean(window):
    """At the end the blocks stand as they were, then the sum; the cursor is visible, on a free line."""
    terminal = Terminal(window.fd, coloured=True)
    terminal.accept([examples()["target"], stuck(1), examples()["stats"]])
    assert terminal.flush(DEADLINE_S) == 0
    terminal.close()
    lines = window.wait_for(lambda lines: any("of CPU" in line for line in lines))
    assert len(heads(lines, "h1.lab.test")) == 1
    assert [line for line in lines if "1001 lookups" in line] == lines[-6:-5]
    assert not window.screen.cursor.hidden
    assert window.screen.cursor.x == 0
    assert b"\x1b[?25l" not in window.raw
    assert terminal.closed


def test_without_colours_there_are_none(window):
    """NO_COLOR leaves the moves of the cursor, and nothing else."""
    terminal = Terminal(window.fd, coloured=False)
    terminal.accept([stuck(1)])
    window.wait_for(lambda lines: heads(lines, "h1.lab.test"))
    terminal.close()
    assert b"m" not in {part[-1:] for part in window.raw.split(b"\x1b[")[1:] if len(part) == 1}
    assert b"\x1b[0m" not in window.raw


@pytest.mark.parametrize(("rows", "columns"), [(40, 50), (12, 100), (60, 150), (6, 40)])
def test_a_window_changes_its_size(window, rows, columns):
    """After a resize the next picture fits, and there is still one block."""
    terminal = Terminal(window.fd, coloured=False)
    terminal.accept([stuck(1)])
    window.wait_for(lambda lines: heads(lines, "h1.lab.test"))
    window.resize(rows, columns)
    terminal.accept([stuck(1, 64_000.0)])
    window.wait_for(lambda lines: any("min" in line for line in lines))
    terminal.accept([ended(1)])
    lines = window.wait_for(lambda lines: any("failed" in line for line in lines))
    assert [line for line in lines if ", 1 min" in line] == []
    terminal.close()


def test_a_terminal_that_takes_nothing_holds_up_nobody(window):
    """After Ctrl-S events are taken at once and counted beyond the limit; later the newest state appears."""
    window.stop_reading()
    terminal = Terminal(window.fd, coloured=False)
    terminal.accept([stuck(1)])
    slowest_s = 0.0
    for number in range(MOST_WAITING + 1000):
        began_s = time.monotonic()
        terminal.accept([healthy(100 + number)])
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    assert slowest_s < 1.0
    assert terminal.refusing
    terminal.accept([stuck(1, 99_000.0)])
    assert terminal.flush(0.05) > 0
    window.read_on()
    window.wait_for(lambda lines: "1 min" in "".join(heads(lines, "h1.lab.test")))
    assert terminal.flush(DEADLINE_S) == 0
    assert terminal.take_dropped() > 0
    terminal.close()


def test_a_terminal_that_hangs_for_good_does_not_hold_up_the_end(window):
    """Nobody ever reads: closing gives up after a moment."""
    window.stop_reading()
    terminal = Terminal(window.fd, coloured=False)
    terminal.accept([ended(number) for number in range(MOST_WAITING)])
    began_s = time.monotonic()
    terminal.close()
    assert time.monotonic() - began_s < 5


def test_a_window_that_is_closed_ends_the_output():
    """When the terminal goes away the output is closed: the agent's sign to end quietly."""
    reader, fd = os.openpty()
    terminal = Terminal(fd, coloured=False)
    terminal.accept([stuck(1)])
    os.close(reader)
    deadline = time.monotonic() + DEADLINE_S
    while not terminal.closed:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert terminal.flush(0.1) == 0
    terminal.close()
    os.close(fd)


def test_a_log_line_goes_above_the_blocks(window, monkeypatch):
    """A log line to the same terminal breaks no block, and standard error comes back afterwards."""
    monkeypatch.setattr(module, "_is_same_terminal", lambda *_: True)
    before = sys.stderr
    terminal = Terminal(window.fd, coloured=False)
    terminal.accept([stuck(1)])
    window.wait_for(lambda lines: heads(lines, "h1.lab.test"))
    sys.stderr.write("a warning\n")
    assert sys.stderr.isatty()
    lines = window.wait_for(lambda lines: "a warning" in lines)
    assert lines.index("a warning") < lines.index(heads(lines, "h1.lab.test")[0])
    terminal.close()
    assert sys.stderr is before


def test_a_size_that_is_not_told(tmp_path):
    """Where the size of the window is not known, the usual one is taken."""
    with (tmp_path / "file").open("wb") as file:
        assert module._size(file.fileno()) == module.FALLBACK_SIZE
