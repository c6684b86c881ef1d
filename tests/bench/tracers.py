"""What is compared: ebpfdns, the empty probes and the two peers, each attached for as long as a `with` lasts.

Owns: starting each of them, knowing that it is attached, ending it.
Must not know: what is measured meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab.namespace import PACKAGE_PARENT, end, wait_for_file
from ebpfdns.observe.cgroups import cgroup2_directory, cgroup2_mount
from ebpfdns.observe.processes import read_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
HEADERS = HERE.parents[1] / "bpf" / "headers"
#: bcc's tool wants the kernel's headers, and of all that is in them one constant.
SCHED_H = "#define TASK_COMM_LEN 16\n"
PEER_DEADLINE_S = 20.0
END_DEADLINE_S = 30.0
READ_BYTES = 1 << 20


class Agent:
    """A running `ebpfdns attach`, and its output with the times at which we read it."""

    def __init__(self, folder: Path, pids: list[int], *options: str) -> None:
        ready_file = folder / "agent-ready"
        ready_file.unlink(missing_ok=True)
        words = [word for pid in pids for word in ("--pid", str(pid))]
        argv = [sys.executable, "-m", "ebpfdns", "attach", *words, *options, "--ready-file", str(ready_file)]
        paths = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
        started_ns = time.monotonic_ns()
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdout=pipe, env={**os.environ, "PYTHONPATH": paths})
        self._chunks: list[tuple[int, bytes]] = []
        self._is_over = False
        try:
            wait_for_file(ready_file, self.process)
        except EbpfdnsError:
            end(self.process)
            raise
        self.ready_ms = (time.monotonic_ns() - started_ns) / 1e6

    def read_until(self, is_done: Callable[[], bool], poll_ms: int = 20) -> None:
        """Take in its output until it ends or `is_done` says so; raise when neither comes to pass."""
        assert self.process.stdout is not None
        output_fd = self.process.stdout.fileno()
        give_up_at = time.monotonic() + END_DEADLINE_S
        poller = select.poll()
        poller.register(output_fd, select.POLLIN)
        while not self._is_over and not is_done():
            if time.monotonic() > give_up_at:
                raise EbpfdnsError(f"ebpfdns attach did not come to an end within {END_DEADLINE_S:.0f} s")
            if poller.poll(poll_ms):
                chunk = os.read(output_fd, READ_BYTES)
                self._chunks.append((time.time_ns(), chunk))
                self._is_over = not chunk

    def stop(self) -> list[tuple[int, dict[str, Any]]]:
        """End it as Ctrl-C does; all of its lines, each with the wall-clock nanosecond it was read at."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.rest()

    def rest(self) -> list[tuple[int, dict[str, Any]]]:
        """Wait for it to end by itself; all of its lines, with times."""
        self.read_until(lambda: False)
        end_code = self.process.wait()
        if end_code:
            raise EbpfdnsError(f"ebpfdns attach ended with code {end_code}")
        found: list[tuple[int, dict[str, Any]]] = []
        unfinished = b""
        for at_ns, chunk in self._chunks:
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            found += [(at_ns, orjson.loads(line)) for line in lines]
        return found


@contextlib.contextmanager
def agent(folder: Path, pid: int, *options: str) -> Iterator[Agent]:
    """`ebpfdns attach` to one process."""
    running = Agent(folder, [pid], *options)
    try:
        yield running
        if running.process.poll():  # 0: its target has ended, or we have stopped it
            raise EbpfdnsError(f"ebpfdns attach ended with code {running.process.returncode}")
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.communicate(timeout=PEER_DEADLINE_S)
        end(running.process)


@contextlib.contextmanager
def empty(folder: Path, pid: int, syscalls: tuple[str, ...], places: tuple[str, ...] = ()) -> Iterator[None]:
    """The empty probes; `places`: FILE:OFFSET, instead of getaddrinfo."""
    ready_file = folder / "empty-ready"
    ready_file.unlink(missing_ok=True)
    words = [word for syscall in syscalls for word in ("--syscall", syscall)]
    words += [word for place in places for word in ("--at", place)]
    argv = [sys.executable, str(HERE / "empty_probes.py"), "--pid", str(pid), *words]
    mount = cgroup2_mount()
    found = mount and cgroup2_directory(mount, read_process(pid).cgroup2_path)
    argv += ["--cgroup", str(found.path)] if found else []
    argv += ["--ready-file", str(ready_file)]
    paths = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(HEADERS), "PYTHONPATH": paths}
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment)
    try:
        wait_for_file(ready_file, process)
        yield
        _still_there(process)
    finally:
        end(process)


@contextlib.contextmanager
def bcc_tool(folder: Path, pid: int, call_once: Callable[[], object]) -> Iterator[None]:
    """The gethostlatency of bcc, bound to the process."""
    program = _found("gethostlatency-bpfcc", "/usr/sbin/gethostlatency-bpfcc")
    headers = folder / "headers"
    if not headers.exists():
        shutil.copytree(HEADERS, headers)
        (headers / "include/linux/sched.h").write_text(SCHED_H)
    has_headers = Path(f"/lib/modules/{os.uname().release}/build").exists()
    environment = os.environ | ({} if has_headers else {"BCC_KERNEL_SOURCE": str(headers)})
    argv = ["/usr/bin/python3", "-u", program, "-p", str(pid)]
    with _peer(folder, argv, environment, call_once):
        yield


@contextlib.contextmanager
def bpftrace_tool(folder: Path, pid: int, call_once: Callable[[], object]) -> Iterator[None]:
    """The gethostlatency of bpftrace, bound to the process."""
    script = _found("gethostlatency.bt", "/usr/share/bpftrace/tools/gethostlatency.bt")
    argv = [_found("bpftrace"), "-B", "line", "-p", str(pid), script]
    with _peer(folder, argv, dict(os.environ), call_once):
        yield


@contextlib.contextmanager
def _peer(
    folder: Path, argv: list[str], environment: dict[str, str], call_once: Callable[[], object]
) -> Iterator[None]:
    """Start a peer; it is attached once it has shown a lookup, so one is made until it has."""
    output = folder / "peer-output"
    with output.open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
    try:
        give_up_at = time.monotonic() + PEER_DEADLINE_S
        while b"192.0.2.1" not in output.read_bytes():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise EbpfdnsError(f"{Path(argv[-1]).name} shows no lookups: {output.read_text()[-300:]}")
            call_once()
        yield
        _still_there(process)
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PEER_DEADLINE_S)
        end(process)


def _still_there(process: subprocess.Popen[Any]) -> None:
    """Raise when a tracer has ended while its cost was measured."""
    if process.poll() is not None:
        raise EbpfdnsError(f"the tracer ended with code {process.returncode} while it was measured")


def _found(*candidates: str) -> str:
    """The first of these programs that is here."""
    path = next(filter(None, map(shutil.which, candidates)), None)
    path = path or next((name for name in candidates if Path(name).exists()), None)
    if path is None:
        raise EbpfdnsError(f"{candidates[0]} is not installed")
    return path
