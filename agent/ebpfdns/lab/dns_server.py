"""A DNS server that answers as scripted: late, wrong, half, or never; over UDP and TCP, IPv4 and IPv6.

Owns: the sockets, the one loop over them, and the heap of replies that are due later.
Must not know: what a rule means (`rules`), how a reply is made (`messages`), who asks.

One thread. A plain reply to a question asked before is a dictionary look-up and two system calls, so that
a load test measures its client, not this server. Standard library only: it starts in 30 ms.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ebpfdns.lab import messages, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Send = Callable[[bytes], None]

MAX_MESSAGE_BYTES = 65_535
RECEIVE_BUFFER_BYTES = 8 << 20
SO_RCVBUFFORCE = 33  # past net.core.rmem_max, for root
DATAGRAMS_PER_TURN = 256
KEPT_REPLIES = 8192
LENGTH_BYTES = 2


class Server:
    """The sockets of one server process and what it does with each query."""

    def __init__(self, script: tuple[rules.Rule, ...], port: int, log: TextIO | None = None) -> None:
        self._rules = script
        self._port = port
        self._log = log
        self._counts_queries = any(rule.nth for rule in script)
        self._times_asked: Counter[tuple[str, str, str, str]] = Counter()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._due_count = 0
        self._selector = selectors.DefaultSelector()
        self._udp_by_address: dict[str, socket.socket] = {}

    def listen(self, address: str, transport: str) -> None:
        """Open `address` for "udp" or "tcp"."""
        if transport == "udp":
            udp = self._udp_socket(address)
            kept: dict[bytes, bytes] = {}
            self._selector.register(udp, selectors.EVENT_READ, lambda: self._read_udp(udp, address, kept))
            return
        listener = _socket(address, self._port, socket.SOCK_STREAM)
        listener.listen(1024)
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener, address))

    def run(self) -> None:
        """Serve until killed."""
        while True:
            for key, _ in self._selector.select(self._send_due()):
                key.data()
            if self._log is not None:
                self._log.flush()

    def _send_due(self) -> float | None:
        """Send every reply whose time has come; say how long the loop may wait for the next one."""
        now_ns = time.monotonic_ns()
        while self._due and self._due[0][0] <= now_ns:
            heapq.heappop(self._due)[2]()
        return (self._due[0][0] - now_ns) / 1e9 if self._due else None

    def _at(self, delay_ms: float, action: Callable[[], None]) -> None:
        """Do `action` now, or after `delay_ms`."""
        if not delay_ms:
            action()
            return
        self._due_count += 1  # keeps the order of equal times, and functions out of comparisons
        due_ns = time.monotonic_ns() + int(delay_ms * 1e6)
        heapq.heappush(self._due, (due_ns, self._due_count, action))

    def _rule_for(self, query: bytes, question: messages.Question, transport: str, server: str) -> rules.Rule:
        """Count the query, choose its rule, log both."""
        nth = 0
        if self._counts_queries:
            asked = (question.name, question.type, transport, server)
            self._times_asked[asked] += 1
            nth = self._times_asked[asked]
        rule = rules.choose(self._rules, question, transport, server, nth)
        if self._log is not None:
            entry = {
                "at_ns": time.monotonic_ns(),
                "server": server,
                "transport": transport,
                "id": int.from_bytes(query[:2], "big"),
                "name": question.name,
                "type": question.type,
                "action": rule.action,
            }
            self._log.write(json.dumps(entry) + "\n")
        return rule

    # UDP

    def _udp_socket(self, address: str) -> socket.socket:
        """The socket bound to `address`, made when first asked for."""
        if address not in self._udp_by_address:
            self._udp_by_address[address] = _socket(address, self._port, socket.SOCK_DGRAM)
        return self._udp_by_address[address]

    def _read_udp(self, udp: socket.socket, address: str, kept: dict[bytes, bytes]) -> None:
        """Answer what has arrived, but let the other sockets have their turn."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                query, peer = udp.recvfrom(MAX_MESSAGE_BYTES)
            except OSError:  # nothing more
                return
            rest = kept.get(query[2:])
            if rest is None:
                self._answer_udp(udp, address, kept, query, peer)
                continue
            _send_datagram(udp, query[:2] + rest, peer)

    def _answer_udp(
        self,
        udp: socket.socket,
        address: str,
        kept: dict[bytes, bytes],
        query: bytes,
        peer: tuple[object, ...],
    ) -> None:
        """Answer one datagram by its rule; remember the reply when the rule is plain."""
        question = messages.parse_question(query)
        if question is None:
            return
        rule = self._rule_for(query, question, "udp", address)
        reply = rule.reply(query, question)
        if reply is None:
            return
        if rule.is_plain and not self._counts_queries and self._log is None and not rule.flip_id:
            if len(kept) >= KEPT_REPLIES:
                kept.clear()
            kept[query[2:]] = reply[2:]
        sender = self._udp_socket(rule.source) if rule.source else udp
        wire = reply[: len(reply) // 2] if rule.half else reply
        self._at(rule.delay_ms, lambda: _send_datagram(sender, wire, peer))

    # TCP

    def _accept(self, listener: socket.socket, address: str) -> None:
        """Take one new connection."""
        try:
            stream, _ = listener.accept()
        except OSError:  # it went away again
            return
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setblocking(False)  # noqa: FBT003 - socket's own signature
        unread = bytearray()
        self._selector.register(stream, selectors.EVENT_READ, lambda: self._read_tcp(stream, address, unread))

    def _read_tcp(self, stream: socket.socket, address: str, unread: bytearray) -> None:
        """Answer every whole message that has arrived on this connection."""
        try:
            chunk = stream.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._hang_up(stream)
            return
        unread += chunk
        while stream.fileno() >= 0 and (query := _take_message(unread)) is not None:
            self._answer_tcp(stream, address, query)

    def _answer_tcp(self, stream: socket.socket, address: str, query: bytes) -> None:
        """Answer one message by its rule."""
        question = messages.parse_question(query)
        if question is None:
            return
        rule = self._rule_for(query, question, "tcp", address)
        reply = rule.reply(query, question)
        if reply is None:
            if rule.close:
                self._at(rule.delay_ms, lambda: self._hang_up(stream))
            return
        sent = reply[: len(reply) // 2] if rule.half else reply
        wire = struct.pack(">H", len(reply)) + sent
        self._at(rule.delay_ms, lambda: _send_stream(stream, wire))

    def _hang_up(self, stream: socket.socket) -> None:
        """Close one connection, once."""
        if stream.fileno() >= 0:
            self._selector.unregister(stream)
            stream.close()


def _socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket bound to `address`; an IPv6 one takes IPv6 only."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    bound = socket.socket(family, kind)
    bound.setblocking(False)  # noqa: FBT003 - socket's own signature
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if os.geteuid() == 0:
        bound.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    bound.bind((address, port))
    return bound


def _take_message(unread: bytearray) -> bytes | None:
    """Remove one length-prefixed message from the front of `unread`; None while it is not complete."""
    if len(unread) < LENGTH_BYTES:
        return None
    end = LENGTH_BYTES + int.from_bytes(unread[:LENGTH_BYTES], "big")
    if len(unread) < end:
        return None
    message = bytes(unread[LENGTH_BYTES:end])
    del unread[:end]
    return message


def _send_datagram(udp: socket.socket, wire: bytes, peer: tuple[object, ...]) -> None:
    """Send one reply; a client that has gone, or a full queue, is no concern of ours."""
    try:
        udp.sendto(wire, peer)
    except OSError:
        return


def _send_stream(stream: socket.socket, wire: bytes) -> None:
    """Write one reply to a connection that may be closed by now; replies are far smaller than its buffer."""
    if stream.fileno() < 0:
        return
    try:
        stream.send(wire)
    except OSError:
        return


def main(arguments: Sequence[str] | None = None) -> None:
    """Listen, create the ready file, serve until killed."""
    parser = argparse.ArgumentParser(description="A DNS server that answers as scripted.")
    parser.add_argument("--listen", action="append", required=True, metavar="ADDRESS")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--transport", action="append", choices=["udp", "tcp"], help="default: both")
    parser.add_argument("--script", required=True, metavar="JSON", help="a list of rules, or @FILE")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    parser.add_argument("--log-file", type=Path, metavar="FILE", help="one JSON line per query")
    chosen = parser.parse_args(arguments)
    text: str = chosen.script
    script = rules.parse(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    log = chosen.log_file.open("a", encoding="utf-8") if chosen.log_file else None
    server = Server(script, chosen.port, log)
    for address in chosen.listen:
        for transport in chosen.transport or ("udp", "tcp"):
            server.listen(address, transport)
    if chosen.ready_file:
        chosen.ready_file.touch()
    try:
        server.run()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
