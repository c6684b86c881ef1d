"""An asyncio program that looks a name up and blocks its own event loop meanwhile.

Owns: the question, as a datagram of its own or by getaddrinfo; what keeps the loop; one JSON line at the end.
Must not know: faults, sandboxes, the agent. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
import time

from ebpfdns.lab import topology

DNS_PORT = 53
TURN_S = 0.01
ADDRESS_BYTES = 4


class Asker(asyncio.DatagramProtocol):
    """Waits for one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _addr: object) -> None:
        """The answer is read."""
        if not self.answer.done():
            self.answer.set_result(data)


def main() -> None:
    """Say that we are ready; the rest is done in the loop."""
    parser = argparse.ArgumentParser(description="Look a name up, and do not come back to the event loop.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--server", default=topology.SERVER_1)
    parser.add_argument("--by", choices=("datagram", "getaddrinfo"), default="datagram")
    parser.add_argument("--away", choices=("sleep", "busy"), default="sleep")
    parser.add_argument("--away-ms", type=int, default=0)
    parser.add_argument("--ready-file", metavar="FILE", required=True)
    parser.add_argument("--go-file", metavar="FILE", required=True)
    chosen = parser.parse_args()
    os.close(os.open(chosen.ready_file, os.O_CREAT | os.O_WRONLY, 0o644))
    asyncio.run(look_up(chosen))


async def look_up(chosen: argparse.Namespace) -> None:
    """Wait for the go, ask, be away, read, print what came of it."""
    while not os.path.exists(chosen.go_file):  # noqa: ASYNC110, ASYNC240, PTH110 - nothing else is told
        await asyncio.sleep(TURN_S)
    started_ns = time.monotonic_ns()
    if chosen.by == "datagram":
        addresses = await _ask(chosen)
    else:
        waiting = asyncio.ensure_future(asyncio.get_running_loop().getaddrinfo(chosen.name, 443))
        await asyncio.sleep(0)
        be_away(chosen.away, chosen.away_ms / 1000)
        addresses = [str(entry[4][0]) for entry in await waiting]
    took_ms = round((time.monotonic_ns() - started_ns) / 1e6, 3)
    result = {"name": chosen.name, "ok": True, "addresses": addresses, "error": None, "lookup_ms": took_ms}
    sys.stdout.write(json.dumps(result) + "\n")


async def _ask(chosen: argparse.Namespace) -> list[str]:
    """One question to the server, and the address at the end of its answer."""
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=(chosen.server, DNS_PORT))
    transport.sendto(question(chosen.name))
    be_away(chosen.away, chosen.away_ms / 1000)
    answer = await asker.answer
    transport.close()
    return [".".join(map(str, answer[-ADDRESS_BYTES:]))]


def question(name: str) -> bytes:
    """A question for an A record."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def be_away(how: str, seconds: float) -> None:
    """What a coroutine must not do."""
    if how == "sleep":
        time.sleep(seconds)
        return
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


if __name__ == "__main__":
    main()
