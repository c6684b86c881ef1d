"""What every command that traces does before its session: rights (exit code 3), limits, the loaded kernel.

Owns: that order. Must not know: targets, lines, what is done with the kernel.
"""

from __future__ import annotations

import contextlib
import os
import resource
from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfdns.commands import host_checks
from ebpfdns.errors import HostCannotTraceError

if TYPE_CHECKING:
    from ebpfdns.commands.shared_options import Tracing
    from ebpfdns.observe.host import Host
    from ebpfdns.observe.kernel import Kernel


def open_kernel(
    stack: contextlib.ExitStack, wanted: Tracing, *, filter_calls: bool, follow_children: bool
) -> Kernel:
    """The programs, loaded; unloaded when the stack is."""
    from ebpfdns.observe.host import kernel_version, read_host  # noqa: PLC0415 - `--help` needs none of it
    from ebpfdns.observe.kernel import Kernel  # noqa: PLC0415
    from ebpfdns.observe.sources import fitting  # noqa: PLC0415
    from ebpfdns.observe.tracefs import ensure_tracefs  # noqa: PLC0415

    host = read_host()
    _check_rights(host)
    if not host.is_proc_ours:
        raise HostCannotTraceError(host_checks.OTHER_PROC, remedy=host_checks.MOUNT_PROC)
    tracefs = ensure_tracefs()
    host = replace(host, tracefs=str(tracefs))
    if wanted.assumed_kernel is not None:
        host = replace(host, kernel=kernel_version(wanted.assumed_kernel))
    variant = fitting(
        host,
        dns_ports=wanted.dns_ports or (53,),
        sizes=wanted.sizes(),
        filter_calls=filter_calls,
        follow_children=follow_children,
    )
    _raise_limits()
    return stack.enter_context(Kernel(variant, tracefs))


def _check_rights(host: Host) -> None:
    """Before anything is tried, so that the message is about rights and not about the first thing refused."""
    if "SYS_ADMIN" in host.capabilities or {"BPF", "PERFMON"} <= host.capabilities:
        return
    who = "root without CAP_BPF and CAP_PERFMON" if os.geteuid() == 0 else "an ordinary user"
    raise HostCannotTraceError(
        f"tracing needs root, and this is {who}",
        remedy="sudo ebpfdns …   (a container: the capabilities in docs/deployment.md)",
    )


def _raise_limits() -> None:
    """Each target takes a descriptor; before 5.11 BPF maps count as locked memory."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for limit, wanted in ((resource.RLIMIT_NOFILE, (most, most)), (resource.RLIMIT_MEMLOCK, unlimited)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, wanted)
