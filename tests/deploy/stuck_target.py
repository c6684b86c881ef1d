"""Runs inside a container: a program whose lookups get stuck, beside the silent DNS server they wait for.

For each line on stdin it looks that name up. Says on stdout: `pid N` at start, `asked` when the server has
received a question (so the lookup is in flight), `ended REASON` when the lookup is over.
"""

import os
import socket
import sys
import threading

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))


def serve() -> None:
    """Receive and never answer."""
    while True:
        server.recvfrom(4096)
        print("asked", flush=True)  # noqa: T201 - stdout is this program's interface


threading.Thread(target=serve, daemon=True).start()
print(f"pid {os.getpid()}", flush=True)  # noqa: T201
for line in sys.stdin:
    try:
        socket.getaddrinfo(line.strip(), 443)
    except OSError as error:
        print(f"ended {error}", flush=True)  # noqa: T201
