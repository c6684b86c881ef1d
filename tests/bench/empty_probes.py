"""The yardstick: probes that do nothing, attached where ebpfdns attaches its own, until stdin ends.

Owns: the empty BPF programs: uprobe and uretprobe on getaddrinfo, or uprobes at other places, a pair of
tracepoints on system calls, a pair on the packets of a cgroup.
Must not know: what is compared with them. A process of its own, so that all is gone when it ends.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path

from bcc import BPF, lib

from ebpfdns.observe import bpf_calls, probes

PROGRAM = """
int on_entry(struct pt_regs *ctx) { return 0; }
int on_return(struct pt_regs *ctx) { return 0; }
int on_tracepoint(void *ctx) { return 0; }
int on_packet(struct __sk_buff *skb) { return 1; }
"""


def main() -> None:
    """Load, attach, create the ready file, wait for the end of stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, required=True, help="the uprobes are bound to it")
    parser.add_argument("--syscall", action="append", default=[], help="tracepoints at its entry and exit")
    parser.add_argument("--at", action="append", default=[], metavar="FILE:OFFSET", help="not getaddrinfo")
    parser.add_argument("--cgroup", type=Path, help="of the process: programs on its packets")
    parser.add_argument("--ready-file", type=Path, required=True)
    chosen = parser.parse_args()
    bpf = BPF(text="#include <uapi/linux/ptrace.h>\n" + PROGRAM)
    for function, is_return in () if chosen.at else (("on_entry", 0), ("on_return", 1)):
        _attach(bpf.load_func(function, BPF.KPROBE).fd, function, chosen.pid, is_return=is_return)
    for place in chosen.at:
        path, _, offset = place.rpartition(":")
        _attach_at(bpf.load_func("on_entry", BPF.KPROBE).fd, path.encode(), int(offset), chosen.pid)
    bpf.load_func("on_tracepoint", BPF.TRACEPOINT)
    for syscall in chosen.syscall:
        for edge in ("enter", "exit"):
            bpf.attach_tracepoint(tp=f"syscalls:sys_{edge}_{syscall}", fn_name="on_tracepoint")
    if chosen.cgroup is not None:
        _link_packets(bpf.load_func("on_packet", BPF.CGROUP_SKB).fd, chosen.cgroup)
    chosen.ready_file.touch()
    sys.stdin.read()


def _link_packets(program_fd: int, cgroup: Path) -> None:
    """See what arrives in a cgroup and what leaves it; bcc's own way would outlive this process."""
    cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    for hook in (probes.INGRESS, probes.EGRESS):
        bpf_calls.link_cgroup(program_fd, cgroup_fd, hook)


def _attach(program_fd: int, name: str, pid: int, *, is_return: int) -> None:
    """Bind a probe on getaddrinfo to a process.

    The attach_uprobe of bcc 0.26 leaves out the last argument, the offset of a reference counter. Its library
    takes what happens to be on the stack, and the kernel refuses a second probe whose offset is another.
    """
    path, offset = BPF._check_path_symbol("c", "getaddrinfo", 0, pid)
    no_counter = ctypes.c_uint32(0)
    if lib.bpf_attach_uprobe(program_fd, is_return, name.encode(), path, offset, pid, no_counter) < 0:
        sys.exit("the empty probe on getaddrinfo cannot be attached")


def _attach_at(program_fd: int, path: bytes, offset: int, pid: int) -> None:
    """Bind a probe on a place in a file to a process."""
    if (
        lib.bpf_attach_uprobe(program_fd, 0, f"at_{offset:x}".encode(), path, offset, pid, ctypes.c_uint32(0))
        < 0
    ):
        sys.exit(f"no empty probe can be attached at {offset:#x}")


if __name__ == "__main__":
    main()
