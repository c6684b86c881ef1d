"""A program that looks names up in ways of its own: in two threads, after a fork, stopped, without files.

Owns: these ways, and one JSON line about the end. Must not know: faults, sandboxes, the agent.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.lab.target import wait_for_go

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_MS = 2
PORT_53_IN_HEX = ":0035"
CHILD_LINGERS_MS = 3000
STOPPED_AFTER_MS, STOPPED_FOR_MS = 200, 4000


def main() -> None:
    """Say that we are ready, wait for the go, look up in the chosen way, print that it is over."""
    parser = argparse.ArgumentParser(description="Look names up in ways of its own.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--way", choices=tuple(WAYS), required=True)
    parser.add_argument("--ready-file", metavar="FILE", help="create it when ready")
    parser.add_argument("--go-file", metavar="FILE", help="wait until it exists")
    chosen = parser.parse_args()
    if chosen.ready_file:
        os.close(os.open(chosen.ready_file, os.O_CREAT | os.O_WRONLY, 0o644))
    wait_for_go(chosen.go_file)
    started_ns = time.monotonic_ns()
    WAYS[chosen.way](chosen.name)
    took_ms = round((time.monotonic_ns() - started_ns) / 1e6, 3)
    result = {"name": chosen.name, "ok": False, "addresses": [], "error": "no address", "lookup_ms": took_ms}
    sys.stdout.write(json.dumps(result) + "\n")


def two_threads(name: str) -> None:
    """Both call gethostbyname, which lets only one in."""
    threads = [threading.Thread(target=_gethostbyname, args=(f"{who}.{name}",)) for who in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def forked(name: str) -> None:
    """A child that is forked while a thread is in gethostbyname calls it too; it is killed in the end."""
    thread = threading.Thread(target=_gethostbyname, args=(f"parent.{name}",))
    thread.start()
    while not _has_asked():
        select.poll().poll(POLL_MS)
    child = os.fork()
    if child == 0:
        _gethostbyname(f"child.{name}")
        os._exit(0)
    select.poll().poll(CHILD_LINGERS_MS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    thread.join()


def no_descriptors(name: str) -> None:
    """The limit is what is in use already."""
    in_use = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - as the others
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        socket.getaddrinfo(name.encode(), 0)  # a text would have Python open a file first
    except OSError:
        return


def _gethostbyname(name: str) -> None:
    """That of libc itself, which Python's function of that name does not call."""
    ctypes.CDLL(None).gethostbyname(name.encode())


def _has_asked() -> bool:
    """Whether a UDP socket here is connected to port 53."""
    lines = Path("/proc/self/net/udp").read_text().splitlines()[1:]
    return any(line.split()[2].endswith(PORT_53_IN_HEX) for line in lines)


def stopped(name: str) -> None:
    """A child stops the program once it has asked, and lets it go on later."""
    pid = os.getpid()
    child = os.fork()
    if child == 0:
        time.sleep(STOPPED_AFTER_MS / 1000)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED_FOR_MS / 1000)
        os.kill(pid, signal.SIGCONT)
        os._exit(0)
    with contextlib.suppress(socket.gaierror):
        socket.getaddrinfo(name, 443)
    os.waitpid(child, 0)


WAYS: dict[str, Callable[[str], None]] = {
    "two-threads": two_threads,
    "fork": forked,
    "stopped": stopped,
    "no-descriptors": no_descriptors,
}


if __name__ == "__main__":
    main()
