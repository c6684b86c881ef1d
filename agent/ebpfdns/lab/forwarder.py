"""A small DNS forwarder, as stands on 127.0.0.53 of many machines: it takes questions, and asks an upstream.

Owns: its one UDP socket, and the way to the upstream: plain UDP, or DNS over TLS as far as the connection.
Must not know: what is asked, faults. Standard library only.

Over TLS it behaves as systemd-resolved does with DNSOverTLS=yes when TCP port 853 is swallowed on the way:
questions wait for a connection that never comes up, and there is no other way out. What would follow a
connection, a TLS session, is not there: the lab has no upstream that speaks it.
"""

from __future__ import annotations

import argparse
import selectors
import socket
from collections import OrderedDict
from pathlib import Path

from ebpfdns.lab import kernel_calls

DNS_PORT, DOT_PORT = 53, 853
MAX_MESSAGE_BYTES = 65_535
ID_BYTES = 2
MAX_WAITING = 1024


class Forwarder:
    """The socket that clients ask, and who waits for what."""

    def __init__(self, listen: str, upstream: str) -> None:
        self._upstream = upstream
        self._clients = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._clients.bind((listen, DNS_PORT))
        #: id → client; questions of two clients under one id are rare, and the later one counts
        self._waiting: OrderedDict[bytes, tuple[str, int]] = OrderedDict()

    def forward(self) -> None:
        """By plain UDP, until killed."""
        upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        upstream.connect((self._upstream, DNS_PORT))
        selector = selectors.DefaultSelector()
        selector.register(self._clients, selectors.EVENT_READ)
        selector.register(upstream, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._clients:
                    upstream.send(self._take())
                else:
                    self._give(upstream.recv(MAX_MESSAGE_BYTES))

    def wait_for_tls(self) -> None:
        """Take questions, and try to connect for them, until killed."""
        connection: socket.socket | None = None
        selector = selectors.DefaultSelector()
        selector.register(self._clients, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is self._clients:
                    self._take()
                elif connection is not None:  # refused, or given up by the kernel
                    selector.unregister(connection)
                    connection.close()
                    connection = None
            if connection is None and self._waiting:
                connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                connection.setblocking(False)  # noqa: FBT003 - its only argument
                connection.connect_ex((self._upstream, DOT_PORT))
                selector.register(connection, selectors.EVENT_WRITE)

    def _take(self) -> bytes:
        """A client's question."""
        message, client = self._clients.recvfrom(MAX_MESSAGE_BYTES)
        self._waiting[message[:ID_BYTES]] = client
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
        return message

    def _give(self, message: bytes) -> None:
        """The upstream's answer to whoever asked."""
        client = self._waiting.pop(message[:ID_BYTES], None)
        if client is not None:
            self._clients.sendto(message, client)


def main() -> None:
    """Bind, create the ready file, forward until killed."""
    parser = argparse.ArgumentParser(description="Forward DNS questions to an upstream.")
    parser.add_argument("--listen", required=True, metavar="ADDRESS")
    parser.add_argument("--upstream", required=True, metavar="ADDRESS")
    parser.add_argument("--over", choices=("udp", "tls"), default="udp")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    kernel_calls.be_called("lab-forwarder")
    forwarder = Forwarder(chosen.listen, chosen.upstream)
    if chosen.ready_file:
        chosen.ready_file.touch()
    (forwarder.wait_for_tls if chosen.over == "tls" else forwarder.forward)()


if __name__ == "__main__":
    main()
