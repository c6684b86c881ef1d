"""Attach everything to a process of our own, look a name up in it, and see whether that was seen.

Owns: this one experiment, for `ebpfdns doctor`. Must not know: how its rows are printed.
The name is a number, so no packet leaves this host.
"""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import replace

from ebpfdns.model.boundary import Counter
from ebpfdns.observe.host import read_host
from ebpfdns.observe.kernel import Kernel
from ebpfdns.observe.sources import fitting
from ebpfdns.observe.target import Target
from ebpfdns.observe.tracefs import ensure_tracefs

Row = tuple[str, str, str]  # name, ok | degraded | missing, detail


def self_test() -> list[Row]:
    """Rows for the doctor. HostCannotTraceError when nothing can be attached at all."""
    started_ns = time.monotonic_ns()
    tracefs = ensure_tracefs()
    with Kernel(fitting(replace(read_host(), tracefs=str(tracefs))), tracefs) as kernel:
        target = Target(os.getpid())
        try:
            kernel.maps.set_options(1, publish_all=True)
            kernel.maps.add_target(target.pid, time.monotonic_ns())
            kernel.attach_host_wide()
            target.attach(kernel)
            took_ms = (time.monotonic_ns() - started_ns) / 1e6
            coverage = target.coverage(kernel)
            before = kernel.maps.counters()[Counter.LOOKUPS_STARTED]
            socket.getaddrinfo("127.0.0.1", 9, type=socket.SOCK_DGRAM)
            seen = kernel.maps.counters()[Counter.LOOKUPS_STARTED] - before
            has_frame = bool(select.select([kernel.ring.fd], [], [], 1)[0]) and bool(kernel.read_frames())
        finally:
            target.close()
    libc = coverage["libc"] or "no libc"
    rows: list[Row] = [("programs", "ok", f"compiled, loaded and attached in {took_ms:.0f} ms")]
    if seen == 1 and has_frame:
        rows.append(("uprobe on this libc", "ok", f"a lookup of our own was seen ({libc})"))
    else:
        rows.append(("uprobe on this libc", "missing", f"a lookup of our own was not seen ({libc})"))
    lost = [text for text in coverage["missing"] if text.startswith("DNS packets")]
    rows.append(("DNS packets", "degraded", lost[0]) if lost else ("DNS packets", "ok", "seen by cgroup"))
    rows += [("probe", "degraded", loss) for loss in kernel.losses]
    return rows
