"""The stage of `ebpfdns demo go-test-hang`: a forwarder that cannot reach its upstream, and a real `go test`.

Owns: the namespace, forwarders and server in it, the test's folder, and `ebpfdns run -- go test`.
Must not know: what the lines say, how they are shown.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab import go_toolchain, topology
from ebpfdns.lab.fault import ServerPlan
from ebpfdns.lab.namespace import PACKAGE_PARENT, Sandbox, bare_python

if TYPE_CHECKING:
    from collections.abc import Iterator

STUB, OTHER_STUB = "127.0.0.53", "127.0.0.54"
UPSTREAM, WORKING_SERVER = topology.BLACK_HOLE_SERVER, topology.SERVER_1
RESOLVER_OPTIONS = "options timeout:5 attempts:1"  # the lookup ends after 5 s, not after 10
TEST_FILE = Path(__file__).with_name("lookup_test.go")
BUILD_DEADLINE_S, RUN_DEADLINE_S = 600.0, 120.0
OWN_SETTINGS = "EBPFDNS_RUN_"  # of the caller's environment
READ_BYTES = 65_536
STUCK_CODE = 5


@dataclass(slots=True)
class Run:
    """One `ebpfdns run -- go test`: what it wrote, and how it ended."""

    words: list[str]
    test_output: str = ""
    summary: str = ""
    code: int = 0
    lasted_s: float = 0.0


class GoTestStage:
    """A context manager: everything is started inside, nothing is left behind but Go's build cache."""

    def __init__(self, stuck_after: str) -> None:
        self._stuck_after = stuck_after
        self._cleanup = contextlib.ExitStack()
        self._go = go_toolchain.find()
        self._shown = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as cleanup:
            self._sandbox = cleanup.enter_context(Sandbox())
            self.use_forwarder(STUB, UPSTREAM, "tls")
            server = ServerPlan((WORKING_SERVER,), ({"answer": [topology.WEB]},))
            ready_file = self._sandbox.new_file("ready")
            self._sandbox.popen(server.argv(ready_file, None), ready_file=ready_file)
            ready_file, self._packets_file = (
                self._sandbox.new_file("ready"),
                self._sandbox.new_file("packets"),
            )
            words = bare_python("packet_log", "--ready-file", str(ready_file))
            packets = cleanup.enter_context(self._packets_file.open("wb"))
            self._sandbox.popen(words, ready_file=ready_file, stdout=packets)
            self._folder = self._sandbox.new_file("module")
            self._folder.mkdir()
            (self._folder / "go.mod").write_text("module example.org/lookup\n\ngo 1.18\n")
            (self._folder / TEST_FILE.name).write_bytes(TEST_FILE.read_bytes())
            self._environment = self._surroundings()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    @property
    def pid(self) -> int:
        """A process in the namespace, for `nsenter`."""
        return self._sandbox.holder_pid

    def use_forwarder(self, address: str, upstream: str, over: str) -> None:
        """Start one, and let /etc/resolv.conf name it."""
        ready_file = self._sandbox.new_file("ready")
        words = ["--listen", address, "--upstream", upstream, "--over", over, "--ready-file", str(ready_file)]
        self._sandbox.popen(bare_python("forwarder", *words), ready_file=ready_file)
        self._sandbox.write_resolv_conf(f"nameserver {address}\n{RESOLVER_OPTIONS}\n")

    def build(self) -> str:
        """Compile the test, so that it is the test that is slow, not the compiler; Go's version."""
        version = self._go_command("version", RUN_DEADLINE_S)
        self._go_command("test -count=1 -run=^$ .", BUILD_DEADLINE_S)
        return version.split()[2]

    def _go_command(self, words: str, deadline_s: float) -> str:
        process = self._sandbox.popen(
            [self._go, *words.split()],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output: str = process.communicate(timeout=deadline_s)[0]
        except subprocess.TimeoutExpired as error:
            raise EbpfdnsError(f"`go {words}` did not end within {deadline_s:.0f} s") from error
        if process.returncode:
            raise EbpfdnsError(f"`go {words}` failed: {output.strip()}", remedy=go_toolchain.REMEDY)
        return output

    def run(self, test: str, *words: str) -> tuple[Run, Iterator[str]]:
        """`ebpfdns run … -- go test` of one test: its lines as they come, the rest after the last."""
        options = ["--stuck-after", self._stuck_after, *words]
        command = ["go", "test", "-count=1", "-v", f"-run=^{test}$", "."]
        run = Run(["ebpfdns", "run", *options, "--", *command])
        return run, self._lines(run, [*options, "--", *command])

    def _lines(self, run: Run, words: list[str]) -> Iterator[str]:
        lines_file, stdout_file, stderr_file = map(self._sandbox.new_file, ("lines", "stdout", "stderr"))
        os.mkfifo(lines_file)
        reader = os.open(lines_file, os.O_RDONLY | os.O_NONBLOCK)
        argv = [sys.executable, "-P", "-m", "ebpfdns", "run", "--output", str(lines_file), *words]
        started = time.monotonic()
        try:
            with stdout_file.open("wb") as stdout, stderr_file.open("wb") as stderr:
                process = self._sandbox.popen(
                    argv,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,  # Ctrl-C reaches it through us, in order
                )
            try:
                yield from _whole_lines(reader, process)
            finally:
                process.terminate()
            run.code = process.wait(RUN_DEADLINE_S)
        finally:
            os.close(reader)
        run.lasted_s = time.monotonic() - started
        run.test_output, run.summary = stdout_file.read_text(), stderr_file.read_text()

    def packets(self) -> list[str]:
        """Those since the last call."""
        text = self._packets_file.read_text()
        fresh, self._shown = text[self._shown :].splitlines(), len(text)
        return fresh

    def _surroundings(self) -> dict[str, str]:
        found = go_toolchain.environment(self._go)
        kept = {name: value for name, value in found.items() if not name.startswith(OWN_SETTINGS)}
        paths = [str(PACKAGE_PARENT), *filter(None, [kept.get("PYTHONPATH")])]
        return kept | {"PYTHONPATH": os.pathsep.join(paths), "DNS_SERVER": f"{WORKING_SERVER}:53"}


def _whole_lines(reader: int, process: subprocess.Popen[Any]) -> Iterator[str]:
    """What comes through a FIFO until its writer has closed it, or has ended without ever opening it."""
    process_fd = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        poller.register(process_fd, select.POLLIN)
        unfinished = b""
        while True:
            ready = dict(poller.poll(RUN_DEADLINE_S * 1000))
            if not ready:
                raise EbpfdnsError(f"nothing was heard of `ebpfdns run` for {RUN_DEADLINE_S:.0f} s")
            while chunk := _read(reader):
                *lines, unfinished = (unfinished + chunk).split(b"\n")
                yield from (line.decode() for line in lines)
            if process_fd in ready:
                return
            if ready.get(reader, 0) & select.POLLHUP:
                poller.unregister(reader)
    finally:
        os.close(process_fd)


def _read(fd: int) -> bytes:
    """What is there now."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return b""
