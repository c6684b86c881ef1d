"""A program that speaks DNS itself, to a server of its own: no libc call, no resolv.conf.

Owns: one question, its repetition, and one JSON line about what came of it.
Must not know: faults, sandboxes, the agent. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import time

from ebpfdns.lab.target import wait_for_go

TRIES, TIMEOUT_S = 2, 2.0
#: an OPT record for answers of up to 1,232 bytes
OPT = b"\0" + struct.pack(">2HIH", 41, 1232, 0, 0)
TYPE_A, CLASS_IN, RECURSION_DESIRED = 1, 1, 0x0100


def main() -> None:
    """Say that we are ready, wait for the go, ask, print what came of it."""
    parser = argparse.ArgumentParser(description="Ask one server one question.")
    parser.add_argument("--name", required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--edns", action="store_true", help="ask once without EDNS, then with it")
    parser.add_argument("--ready-file", metavar="FILE", help="create it when ready")
    parser.add_argument("--go-file", metavar="FILE", help="wait until it exists")
    chosen = parser.parse_args()
    if chosen.ready_file:
        os.close(os.open(chosen.ready_file, os.O_CREAT | os.O_WRONLY, 0o644))
    wait_for_go(chosen.go_file)
    started_ns = time.monotonic_ns()
    is_answered = ask(chosen.server, chosen.name) and (
        not chosen.edns or ask(chosen.server, chosen.name, with_opt=True)
    )
    lookup_ms = round((time.monotonic_ns() - started_ns) / 1e6, 3)
    error = None if is_answered else "timed out"
    result = {"name": chosen.name, "ok": is_answered, "addresses": [], "error": error, "lookup_ms": lookup_ms}
    sys.stdout.write(json.dumps(result) + "\n")


def ask(server: str, name: str, *, with_opt: bool = False) -> bool:
    """Whether the server answered, on a socket that is connected as most resolvers' are."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    header = struct.pack(">6H", os.getpid() & 0xFFFF, RECURSION_DESIRED, 1, 0, 0, int(with_opt))
    question = header + labels + b"\0" + struct.pack(">2H", TYPE_A, CLASS_IN) + (OPT if with_opt else b"")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(TIMEOUT_S)
        udp.connect((server, 53))
        for _ in range(TRIES):
            udp.send(question)
            try:
                return bool(udp.recv(512))
            except TimeoutError:
                continue
            except OSError:
                return False
    return False


if __name__ == "__main__":
    main()
