"""The real agent as a child process, and its lines as they come.

Owns: starting `ebpfdns`, reading both its streams, waiting for a line, the orderly end.
Must not know: targets, faults, what a test expects. What every stream must keep is in `promises`.

    with Agent("attach", "--pid", pid, "--all") as agent:  # every probe is live
        program.go()
        agent.wait_for(lambda line: line["event"] == "lookup_stuck")
        lines = agent.stop()  # SIGTERM; or agent.finish() when it ends by itself
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import promises

from ebpfdns.lab.namespace import PACKAGE_PARENT, end, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Callable

    Line = dict[str, Any]

DEADLINE_S = 60.0
OWN_SETTINGS = "EBPFDNS_"  # of the caller's environment


class Agent:
    """`ebpfdns` with these words behind it; inside the `with`, every probe is live.

    Options are those of subprocess.Popen.
    """

    def __init__(self, *words: object, **options: Any) -> None:
        self._words = [str(word) for word in words]
        self._options = options
        self._cleanup = contextlib.ExitStack()
        self._news = threading.Condition()
        self._has_ended = False
        self.lines: list[Line] = []
        self._texts: list[bytes] = []
        self.log = ""  # stderr
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as cleanup:
            folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="agent-")))
            ready_file = folder / "ready"
            argv = [sys.executable, "-P", "-m", "ebpfdns", *self._words, "--ready-file", str(ready_file)]
            pipe = subprocess.PIPE
            options: dict[str, Any] = {"stdout": pipe, "stderr": pipe, "env": environment()}
            options |= self._options
            self.process = subprocess.Popen(argv, **options)
            cleanup.callback(end, self.process)
            self._readers = [threading.Thread(target=read) for read in (self._read_lines, self._read_log)]
            for reader in self._readers:
                reader.start()
                cleanup.callback(reader.join)
            cleanup.callback(self.process.kill)  # the readers end when both pipes do
            try:
                wait_for_file(ready_file, self.process)
            except Exception as error:
                self.process.kill()
                self._readers[1].join()
                raise AssertionError(f"{error}: {self.log}") from error
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    @property
    def text(self) -> bytes:
        """Its output, byte for byte."""
        return b"".join(self._texts)

    @property
    def pid(self) -> int:
        """Of the agent itself."""
        return self.process.pid

    def wait_for(
        self, fits: Callable[[Line], bool], count: int = 1, deadline_s: float = DEADLINE_S
    ) -> list[Line]:
        """The first `count` lines that fit, as soon as there are so many."""
        return self._wait(lambda: self._first(fits, count), deadline_s)

    def stop(self, number: signal.Signals = signal.SIGTERM, *, may_log: bool = False) -> list[Line]:
        """Ask it to end; all its lines, checked."""
        self.process.send_signal(number)
        return self.finish(may_log=may_log, was_stopped=True)

    def finish(
        self, *, may_log: bool = False, was_stopped: bool = False, deadline_s: float = DEADLINE_S
    ) -> list[Line]:
        """Wait for its end; all its lines, checked."""
        assert self.process.wait(deadline_s) == 0, self.log
        for reader in self._readers:
            reader.join()
        assert may_log or self.log == "", self.log
        promises.check(self.lines, was_stopped=was_stopped)
        return self.lines

    # Inside.

    def _first(self, fits: Callable[[Line], bool], count: int) -> list[Line] | None:
        found = [line for line in self.lines if fits(line)]
        return found[:count] if len(found) >= count else None

    def _wait(self, look: Callable[[], list[Line] | None], deadline_s: float) -> list[Line]:
        give_up_at = time.monotonic() + deadline_s
        with self._news:
            while (found := look()) is None:
                left_s = give_up_at - time.monotonic()
                assert left_s > 0, f"not within {deadline_s:.0f} s; so far:\n{self._told()}"
                assert not self._has_ended, f"the agent has ended; its lines:\n{self._told()}\n{self.log}"
                self._news.wait(left_s)
            return found

    def _told(self) -> str:
        return "\n".join(f"{line['event']}: {line['message']}" for line in self.lines)

    def _read_lines(self) -> None:
        for text in self.process.stdout or ():
            with self._news:
                self._texts.append(text)
                assert text.endswith(b"\n"), text
                self.lines.append(json.loads(text))
                self._news.notify_all()
        with self._news:
            self._has_ended = True
            self._news.notify_all()

    def _read_log(self) -> None:
        for text in self.process.stderr or ():
            self.log += text.decode()


def environment() -> dict[str, str]:
    """Ours, without settings of the agent's, and so that the agent is the code under test."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN_SETTINGS)}
    paths = [str(PACKAGE_PARENT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def of(lines: list[Line], event: str, pid: int | None = None) -> list[Line]:
    """The lines of one kind, perhaps only those about one process."""
    return [
        line for line in lines if line["event"] == event and pid in (None, line.get("process", {}).get("pid"))
    ]


def only(lines: list[Line], event: str, pid: int | None = None) -> Line:
    """The one line of this kind."""
    found = of(lines, event, pid)
    assert len(found) == 1, [line["message"] for line in found]
    return found[0]
