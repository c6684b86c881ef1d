"""`hosts_file_huge`: the time goes into reading /etc/hosts.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import asked_nobody
from ebpfdns.diagnose.observations import thread_waits

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

HUGE_BYTES = 1_000_000
READS = ("read", "pread64", "readv")


def rule(case: LookupCase) -> Cause | None:
    """It asked nobody, its thread works or reads, and the hosts file is huge."""
    lookup, thread = case.lookup, case.thread
    if lookup.queries or lookup.is_wire or lookup.api.startswith("res_") or thread is None:
        return None
    hosts = (case.situation.process or {}).get("hosts_file") or {}
    size_bytes = hosts.get("size_bytes")
    if size_bytes is None or size_bytes < HUGE_BYTES:
        return None
    is_reading = thread.syscall in READS and not thread.sockets
    if thread.is_stopped or not (thread.is_running or is_reading):
        return None
    position = hosts.get("read_position")
    return Cause(
        "hosts_file_huge",
        "likely" if position is None else "confirmed",
        f"The time goes into /etc/hosts: it has {_megabytes(size_bytes)}, and every lookup reads it anew.",
        (_size(size_bytes, position), thread_waits(thread, case.elapsed_ns), asked_nobody(case)),
        "Serve the list by a local DNS server (dnsmasq --addn-hosts=FILE) and keep /etc/hosts short",
    )


def _size(size_bytes: int, position: int | None) -> Evidence:
    text = f"/etc/hosts has {_megabytes(size_bytes)}"
    if position is None:
        return Evidence(
            "hosts_file_size", f"{text}; whether it is being read was not seen", {"size_bytes": size_bytes}
        )
    text += f", and the process has read {_megabytes(position)} of it"
    return Evidence("hosts_file_size", text, {"size_bytes": size_bytes, "read_bytes": position})


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.1f} MB"
