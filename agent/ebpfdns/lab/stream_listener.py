"""A TCP server that takes connections and never says a word: what a stuck or filtered peer looks like.

Owns: the listening sockets, and reading what clients send. Must not know: DNS, TLS, faults.
"""

from __future__ import annotations

import argparse
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 65_536


def main() -> None:
    """Listen, create the ready file, read and forget until killed."""
    parser = argparse.ArgumentParser(description="Accept TCP connections, and stay silent.")
    parser.add_argument("--listen", action="append", required=True, metavar="ADDRESS")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls", metavar="FILE", help="shake hands with this key and certificate first")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    shake_hands = _tls(chosen.tls) if chosen.tls else None
    poller = select.poll()
    listeners, clients = {}, {}
    for address in chosen.listen:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.create_server((address, chosen.port), family=family, backlog=128)
        listeners[listener.fileno()] = listener
        poller.register(listener, select.POLLIN)
    if chosen.ready_file:
        chosen.ready_file.touch()
    while True:
        for fd, _ in poller.poll():
            if fd in listeners:
                client, _ = listeners[fd].accept()
                if shake_hands is not None:
                    client = shake_hands(client)
                clients[client.fileno()] = client
                poller.register(client, select.POLLIN)
            elif not _has_more(clients[fd]):
                poller.unregister(fd)
                clients.pop(fd).close()


def _tls(path: str) -> Callable[[socket.socket], socket.socket]:
    """What makes a TLS session of a connection."""
    import ssl  # noqa: PLC0415 - takes longer to import than all else here

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return lambda client: context.wrap_socket(client, server_side=True)


def _has_more(client: socket.socket) -> bool:
    """Read what is there; False when the client has closed."""
    try:
        return bool(client.recv(READ_BYTES))
    except OSError:
        return False


if __name__ == "__main__":
    main()
