"""An asyncio program that asks a DNS server itself, or by getaddrinfo, and blocks its own loop meanwhile.

Owns: the question as a datagram, and what keeps the loop. Must not know: tracers, causes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from pathlib import Path

DNS_PORT = 53
TURN_S = 0.01


class Asker(asyncio.DatagramProtocol):
    """Waits for one answer."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, _: object) -> None:
        """The answer is read."""
        if not self.answer.done():
            self.answer.set_result(data)


def question(name: str) -> bytes:
    """A question for an A record."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def be_away(how: str, seconds: float) -> None:
    """What a coroutine must not do."""
    if how == "sleep":
        time.sleep(seconds)
    until = time.monotonic() + seconds if how == "busy" else 0
    while time.monotonic() < until:
        pass


async def main() -> None:
    """Wait for the go, ask, be away, read."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="192.0.2.53")
    parser.add_argument("--name", default="www.lab.test")
    parser.add_argument(
        "--by", choices=["datagram", "getaddrinfo", "blocking-getaddrinfo"], default="datagram"
    )
    parser.add_argument("--away", choices=["sleep", "busy"], default="sleep")
    parser.add_argument("--away-ms", type=int, default=0)
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--go-file", type=Path, required=True)
    chosen = parser.parse_args()
    loop = asyncio.get_running_loop()
    chosen.ready_file.touch()
    while not chosen.go_file.exists():  # noqa: ASYNC110 - a file is all that the test can touch
        await asyncio.sleep(TURN_S)
    started = time.monotonic()
    if chosen.by == "datagram":
        transport, asker = await loop.create_datagram_endpoint(Asker, remote_addr=(chosen.server, DNS_PORT))
        transport.sendto(question(chosen.name))
        be_away(chosen.away, chosen.away_ms / 1000)
        size = len(await asker.answer)
    else:
        waiting = loop.getaddrinfo(chosen.name, 443)
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        be_away(chosen.away, chosen.away_ms / 1000)
        size = len(await task)
    sys.stdout.write(json.dumps({"answered": size, "elapsed_s": round(time.monotonic() - started, 3)}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
