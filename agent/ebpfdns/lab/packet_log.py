"""The DNS packets of a namespace, a line each, as `tcpdump -n 'port 53 or port 853'` prints them.

Owns: one packet socket, and that form. Must not know: who sends them, or why.
Standard library only. Each packet is shown once, where it leaves.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import struct
import sys
import time
from pathlib import Path

from ebpfdns.lab import messages

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800
PACKET_OUTGOING = 4
MAX_PACKET_BYTES = 65_535
TCP, UDP = 6, 17
PORTS = frozenset({53, 853})
UDP_HEADER_BYTES = 8
FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"))
ACK = 0x10
REPLY, RECURSION_DESIRED = 0x8000, 0x0100
RCODES = {0: "", 2: " ServFail", 3: " NXDomain", 5: " Refused"}


def main() -> None:
    """Open the socket, create the ready file, print until killed."""
    parser = argparse.ArgumentParser(description="Print DNS packets.")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    # Outgoing ones are seen only by a socket for all protocols.
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    if chosen.ready_file:
        chosen.ready_file.touch()
    while True:
        packet, (_, protocol, kind, _, _) = packets.recvfrom(MAX_PACKET_BYTES)
        if protocol == ETH_P_IP and kind == PACKET_OUTGOING:
            text = described(packet)
            if text is not None:
                sys.stdout.write(f"{_clock()} {text}\n")
                sys.stdout.flush()


def described(packet: bytes) -> str | None:
    """An IPv4 packet in words; None when it is not about DNS, or cut off."""
    try:
        header_bytes, protocol = (packet[0] & 0x0F) * 4, packet[9]
        source, destination = (ipaddress.IPv4Address(packet[at : at + 4]) for at in (12, 16))
        rest = packet[header_bytes:]
        from_port, to_port = struct.unpack_from(">HH", rest)
        if protocol not in (TCP, UDP) or not PORTS & {from_port, to_port}:
            return None
        said = _message(rest[UDP_HEADER_BYTES:]) if protocol == UDP else _segment(rest)
    except (IndexError, struct.error, ValueError):
        return None
    return f"IP {source}.{from_port} > {destination}.{to_port}: {said}"


def _message(message: bytes) -> str:
    """A question or an answer."""
    identity, flags, _, answers, authorities, additionals = struct.unpack_from(">6H", message)
    if flags & REPLY:
        counts = f"{answers}/{authorities}/{additionals}"
        return f"{identity}{RCODES.get(flags & 0xF, '')} {counts} ({len(message)})"
    question = messages.parse_question(message)
    if question is None:
        return f"{identity} ({len(message)})"
    wanted = "+" if flags & RECURSION_DESIRED else ""
    more = f" [{additionals}au]" if additionals else ""
    return f"{identity}{wanted}{more} {question.type}? {question.name}. ({len(message)})"


def _segment(segment: bytes) -> str:
    """A piece of a TCP connection."""
    (sequence,) = struct.unpack_from(">I", segment, 4)
    bits, length = segment[13], len(segment) - (segment[12] >> 4) * 4
    letters = "".join(letter for bit, letter in FLAGS if bits & bit) + ("." if bits & ACK else "")
    return f"Flags [{letters}], seq {sequence}, length {length}"


def _clock() -> str:
    now_ns = time.time_ns()
    return f"{time.strftime('%H:%M:%S', time.localtime(now_ns // 10**9))}.{now_ns % 10**9 // 1000:06}"


if __name__ == "__main__":
    main()
