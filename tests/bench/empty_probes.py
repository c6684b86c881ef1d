"""The yardstick: probes that do nothing, attached where ebpfdns attaches its own, until stdin ends.

Owns: the empty BPF programs: uprobe and uretprobe on getaddrinfo, a pair of tracepoints on system calls.
Must not know: what is compared with them. A process of its own, so that all is gone when it ends.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bcc import BPF

PROGRAM = """
int on_entry(struct pt_regs *ctx) { return 0; }
int on_return(struct pt_regs *ctx) { return 0; }
int on_tracepoint(void *ctx) { return 0; }
"""


def main() -> None:
    """Load, attach, create the ready file, wait for the end of stdin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, required=True, help="the uprobes are bound to it")
    parser.add_argument("--syscall", action="append", default=[], help="tracepoints at its entry and exit")
    parser.add_argument("--ready-file", type=Path, required=True)
    chosen = parser.parse_args()
    bpf = BPF(text="#include <uapi/linux/ptrace.h>\n" + PROGRAM)
    bpf.attach_uprobe(name="c", sym="getaddrinfo", fn_name="on_entry", pid=chosen.pid)
    bpf.attach_uretprobe(name="c", sym="getaddrinfo", fn_name="on_return", pid=chosen.pid)
    bpf.load_func("on_tracepoint", BPF.TRACEPOINT)
    for syscall in chosen.syscall:
        for edge in ("enter", "exit"):
            bpf.attach_tracepoint(tp=f"syscalls:sys_{edge}_{syscall}", fn_name="on_tracepoint")
    chosen.ready_file.touch()
    sys.stdin.read()


if __name__ == "__main__":
    main()
