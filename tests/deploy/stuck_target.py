"""Runs inside a container: a program that gets stuck on demand, beside the silent servers it waits for.

Each line on stdin is one thing to do, in a thread of its own:
    lookup NAME   by getaddrinfo      child NAME   the same in a child process
    ask NAME      with a DNS question made by hand      connect   to a port that never answers
Says on stdout: `pid N` at start, `asked` when the DNS server has received a question (so a lookup is in
flight), `ended REASON` when a lookup is over.
"""

import os
import socket
import struct
import sys
import threading

dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
dns.bind(("127.0.0.1", 53))
full = socket.create_server(("127.0.0.1", 0), backlog=0)
kept = [socket.create_connection(full.getsockname())]  # the one that finds room


def serve() -> None:
    """Receive and never answer."""
    while True:
        dns.recvfrom(4096)
        print("asked", flush=True)  # noqa: T201 - stdout is this program's interface


def lookup(name: str) -> None:
    """Have the C library look a name up."""
    try:
        socket.getaddrinfo(name, 443)
    except OSError as error:
        print(f"ended {error}", flush=True)  # noqa: T201


def child(name: str) -> None:
    """Have a child do so."""
    if os.fork() == 0:
        lookup(name)
        os._exit(0)


def ask(name: str) -> None:
    """Send a question without the C library's resolver, and wait."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.connect(dns.getsockname())
        own.send(struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1))
        own.recv(4096)


def connect() -> None:
    """Wait for a server whose queue is full."""
    with socket.socket() as own:
        own.connect(full.getsockname())


COMMANDS = {"lookup": lookup, "child": child, "ask": ask, "connect": connect}

threading.Thread(target=serve, daemon=True).start()
print(f"pid {os.getpid()}", flush=True)  # noqa: T201
for line in sys.stdin:
    command, *arguments = line.split()
    threading.Thread(target=COMMANDS[command], args=arguments, daemon=True).start()
