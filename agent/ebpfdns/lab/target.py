"""A program that looks one name up when told to: the target of `ebpfdns demo`.

Owns: one getaddrinfo, at most one connect, and one JSON line about both.
Must not know: faults, sandboxes, the agent. Standard library only: it starts in 20 ms.

With `import socket` libc's getaddrinfo is mapped before the ready file exists, so a tracer attached then sees
the lookup from its first instruction on.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from typing import Any

#: What getaddrinfo found: the family, and the address to give to connect.
Found = tuple[socket.AddressFamily, tuple[Any, ...]]

GO_POLL_MS = 2
RESOLV_CONF = "/etc/resolv.conf"


def main() -> None:
    """Say that we are ready, wait for the go, look the name up, perhaps connect, print what came of it."""
    parser = argparse.ArgumentParser(description="Look one name up when told to.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--connect", type=int, metavar="PORT", help="then connect to the first address")
    parser.add_argument("--tls", action="store_true", help="… and begin TLS there")
    parser.add_argument("--in-child", action="store_true", help="let a child do it, and wait for that")
    parser.add_argument("--replace", metavar="TEXT", help="look up once before, then write /etc/resolv.conf")
    parser.add_argument("--ready-file", metavar="FILE", help="create it when ready")
    parser.add_argument("--go-file", metavar="FILE", help="wait until it exists")
    chosen = parser.parse_args()
    if chosen.replace is not None:
        look_up(chosen.name, 0)
        replace_resolv_conf(chosen.replace)
    if chosen.ready_file:
        os.close(os.open(chosen.ready_file, os.O_CREAT | os.O_WRONLY, 0o644))
    wait_for_go(chosen.go_file)
    if chosen.in_child:
        words = [word for word in sys.orig_argv[1:] if word != "--in-child"]
        child = os.posix_spawn(sys.executable, [sys.executable, *words], dict(os.environ))
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    result, addresses = look_up(chosen.name, chosen.connect or 0)
    if chosen.connect and addresses:
        result["connect"] = connect(addresses[0], chosen.name if chosen.tls else None)
    sys.stdout.write(json.dumps(result) + "\n")


def replace_resolv_conf(text: str) -> None:
    """Another file under that name, as a package or a daemon does it."""
    with open(f"{RESOLV_CONF}.new", "w", encoding="ascii") as fresh:  # noqa: PTH123 - as below
        fresh.write(text)
    os.rename(f"{RESOLV_CONF}.new", RESOLV_CONF)  # noqa: PTH104 - as below


def wait_for_go(path: str | None) -> None:
    """Return once `path` exists."""
    nothing = select.poll()
    while path and not os.path.exists(path):  # noqa: PTH110 - as the standard library starts quickest
        nothing.poll(GO_POLL_MS)


def look_up(name: str, port: int) -> tuple[dict[str, object], list[Found]]:
    """One getaddrinfo: what to print of it, and the addresses to connect to."""
    started_ns = time.monotonic_ns()
    found: list[Found] = []
    error: str | None = None
    try:
        results = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        found = [(family, address) for family, _, _, _, address in results]
    except socket.gaierror as failure:
        error = _gai_name(failure.errno)
    addresses = [str(address[0]) for _, address in found]
    lookup_ms = _ms_since(started_ns)
    return {
        "name": name,
        "ok": not error,
        "addresses": addresses,
        "error": error,
        "lookup_ms": lookup_ms,
    }, found


def connect(target: Found, tls_name: str | None) -> dict[str, object]:
    """One blocking TCP connect, as long as the kernel tries; then perhaps TLS, for ever."""
    family, address = target
    started_ns = time.monotonic_ns()
    error: str | None = None
    with socket.socket(family, socket.SOCK_STREAM) as stream:
        try:
            stream.connect(address)
            if tls_name:
                import ssl  # noqa: PLC0415 - takes longer to import than all else here

                ssl._create_unverified_context().wrap_socket(stream, server_hostname=tls_name)  # noqa: S323, SLF001 - nobody answers
        except OSError as failure:
            error = failure.strerror
    return {
        "address": str(address[0]),
        "ok": error is None,
        "error": error,
        "connect_ms": _ms_since(started_ns),
    }


def _gai_name(code: int | None) -> str:
    """The EAI_… name of a getaddrinfo error."""
    names = {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}
    return names.get(code, str(code))


def _ms_since(started_ns: int) -> float:
    """Milliseconds since a monotonic time."""
    return round((time.monotonic_ns() - started_ns) / 1e6, 3)


if __name__ == "__main__":
    main()
