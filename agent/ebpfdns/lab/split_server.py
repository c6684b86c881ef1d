"""A DNS server that listens in one network namespace and asks from another, as Docker's embedded one does.

Owns: the socket that it listens on there, and passing each question on. Must not know: faults, who asks.
Standard library only. What its own server answers is not passed back: it is made for servers that do not.
"""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from ebpfdns.lab import kernel_calls

DNS_PORT = 53
READ_BYTES = 65_536


def main() -> None:
    """Listen in the namespace of a process, come back, pass on until killed."""
    parser = argparse.ArgumentParser(description="Listen in another network namespace than one asks from.")
    parser.add_argument("--namespace-of", type=int, required=True, metavar="PID")
    parser.add_argument("--listen", required=True, metavar="ADDRESS")
    parser.add_argument("--server", required=True, metavar="ADDRESS")
    parser.add_argument("--ready-file", type=Path, metavar="FILE")
    chosen = parser.parse_args()
    with bound_there(chosen.namespace_of, chosen.listen) as listener:
        upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        upstream.connect((chosen.server, DNS_PORT))
        if chosen.ready_file:
            chosen.ready_file.touch()
        while True:
            upstream.send(listener.recv(READ_BYTES))


def bound_there(pid: int, address: str) -> socket.socket:
    """A UDP socket of that process's namespace; this one stays where it is."""
    own, its = (os.open(f"/proc/{who}/ns/net", os.O_RDONLY) for who in ("self", pid))
    kernel_calls.setns(its, kernel_calls.CLONE_NEWNET)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind((address, DNS_PORT))
    kernel_calls.setns(own, kernel_calls.CLONE_NEWNET)
    os.close(own)
    os.close(its)
    return listener


if __name__ == "__main__":
    main()
