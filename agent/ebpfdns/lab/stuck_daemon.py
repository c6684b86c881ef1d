"""A local daemon that is stuck, in one of several ways: it does not accept, read or answer.

Owns: its sockets, and how far it gets with a client. Must not know: what the clients want, faults.
Standard library only.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from pathlib import Path

READ_BYTES = 65_536
BACKLOG = 128
DNS_PORT = 53
#: deaf: does not accept; numb: accepts and does not read; mute: reads and does not answer
WAYS = ("deaf", "numb", "mute")


def main() -> None:
    """Bind, create the ready file, and be stuck until killed."""
    parser = argparse.ArgumentParser(description="Be a local daemon that is stuck.")
    parser.add_argument("--unix", type=Path, metavar="PATH", help="listen there")
    parser.add_argument("--udp", metavar="ADDRESS", help="bind port 53 there, and never read")
    parser.add_argument("--port", type=int, default=DNS_PORT, help="instead of 53")
    parser.add_argument("--way", choices=WAYS, default="deaf")
    parser.add_argument("--answer", metavar="TEXT", help="mute, but answer this once --delay-ms have passed")
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    if chosen.udp:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((chosen.udp, chosen.port))
    else:
        bound = _listener(chosen.unix)
    if chosen.ready_file:
        chosen.ready_file.touch()
    if chosen.udp or chosen.way == "deaf":
        select.select([], [], [])
    serve(bound, chosen.way, chosen.answer, chosen.delay_ms / 1000)


def _listener(path: Path) -> socket.socket:
    """A socket that anybody may connect to; the kernel makes the connections even if nobody accepts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # of one before
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o666)
    listener.listen(BACKLOG)
    return listener


def serve(listener: socket.socket, way: str, answer: str | None, delay_s: float) -> None:
    """Accept; perhaps read; perhaps answer, one client's question after the other's."""
    clients: dict[int, socket.socket] = {}
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    while True:
        for fd, _ in poller.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                clients[client.fileno()] = client
                if way == "mute":
                    poller.register(client, select.EPOLLIN)
            elif not clients[fd].recv(READ_BYTES):
                clients.pop(fd).close()
            elif answer is not None:
                time.sleep(delay_s)
                clients[fd].sendall(answer.encode())


if __name__ == "__main__":
    main()
