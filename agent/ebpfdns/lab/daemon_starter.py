"""Become a real daemon, and say when it listens: `--ready-file FILE [--unix PATH] [--udp ADDRESS] … -- CMD`.

Owns: waiting for the daemon's socket, beside it. Must not know: which daemon it is, faults.
Standard library only: its interpreter runs without `site`.

The daemon keeps this process's number. Who waits is a grandchild that nobody has to collect.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import struct
from pathlib import Path

DNS_PORT = 53
POLL_MS = 2
DEADLINE_POLLS = 10_000


def main() -> None:
    """Leave somebody behind who waits, and run the command."""
    parser = argparse.ArgumentParser(description="Run a daemon, and create a file once it listens.")
    parser.add_argument("--ready-file", required=True)
    parser.add_argument("--unix", metavar="PATH", help="it listens there")
    parser.add_argument("--udp", metavar="ADDRESS", help="it has port 53 there")
    parser.add_argument("--set", metavar="NAME=VALUE", help="in its environment")
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    if chosen.set:
        name, _, value = chosen.set.partition("=")
        os.environ[name] = value
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            _wait(chosen.ready_file, chosen.unix, chosen.udp)
        os._exit(0)
    os.waitpid(child, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.execvp(chosen.command[0], chosen.command)  # noqa: S606 - a list, never a shell


def _wait(ready_file: str, unix: str | None, udp: str | None) -> None:
    """Until it listens, or is gone."""
    nothing = select.poll()
    for _ in range(DEADLINE_POLLS):
        has_unix = unix is None or _listens(unix)
        if has_unix and (udp is None or _is_bound(udp)):
            Path(ready_file).touch()
            return
        nothing.poll(POLL_MS)


def _listens(path: str) -> bool:
    """Whether the path is somebody's; a connect would be a client."""
    lines = Path("/proc/self/net/unix").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.endswith(f" {path}") for line in lines)


def _is_bound(address: str) -> bool:
    (word,) = struct.unpack("=I", socket.inet_aton(address))
    wanted = f"{word:08X}:{DNS_PORT:04X}"
    lines = Path("/proc/self/net/udp").read_text(encoding="ascii").splitlines()[1:]
    return any(line.split()[1] == wanted for line in lines)


if __name__ == "__main__":
    main()
