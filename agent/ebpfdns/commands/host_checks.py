"""What the facts about a host mean for tracing on it: one check per function, each with its remedy.

Owns: the checks of kernel, rights, packages and namespaces behind `ebpfdns doctor`, and how grave each is.
Must not know: where the facts come from, or how the checks are printed.

missing: `attach` cannot do its job. degraded: it can, but what the check names will not be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ebpfdns.observe.host import Host
    from ebpfdns.observe.libraries import Library

Status = Literal["ok", "degraded", "missing"]

MINIMUM_KERNEL = (5, 10)
RING_BUFFER_KERNEL = (5, 8)
#: Uprobes by a link of BPF's own; before, perf_event_open makes them, and asks for more.
UPROBE_LINKS_KERNEL = (6, 10)
AS_ROOT = "sudo ebpfdns …, or give the container the capabilities in docs/deployment.md"
INSTALL_BCC = "apt-get install python3-bpfcc"
#: As after `unshare --pid --fork`: what it says of a number is said of somebody else's process.
OTHER_PROC = "/proc shows the processes of another pid namespace than this one"
MOUNT_PROC = "mount -t proc proc /proc, or unshare with --mount-proc"
NEWER_KERNEL = "boot a kernel of 5.10 or later"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


def host_checks(host: Host) -> list[Check]:
    """What kernel, rights, packages and namespaces allow."""
    return [
        _kernel(host),
        _ring_buffer(host),
        _btf(host),
        _lockdown(host),
        _bpf_rights(host),
        *_rights_over_targets(host),
        _bcc(host),
        _uprobes(host),
        _tracefs(host),
        _cgroup2(host),
        _pid_namespace(host),
    ]


def libc_check(libraries: list[Library]) -> Check:
    """Whether the lookups of a program with the agent's own libc can be seen."""
    found = [library for library in libraries if library.functions]
    if not found:
        detail = "none found in the libc of this very program; a target may have another"
        return Check(
            "lookup functions", "degraded", detail, "ebpfdns attach --pid PID says what it finds there"
        )
    told = [f"{one.kind} {one.version or '(version unknown)'}: {len(one.functions)} found" for one in found]
    return Check("lookup functions", "ok", ", ".join(told))


def _kernel(host: Host) -> Check:
    detail = f"{host.kernel_release} on {host.machine}"
    if host.kernel >= MINIMUM_KERNEL:
        return Check("kernel", "ok", detail)
    return Check("kernel", "missing", f"{detail} is older than 5.10", NEWER_KERNEL)


def _ring_buffer(host: Host) -> Check:
    if host.kernel >= RING_BUFFER_KERNEL:
        return Check("ring buffer", "ok", "in every kernel since 5.8")
    return Check("ring buffer", "missing", "this kernel has none: it came with 5.8", NEWER_KERNEL)


def _btf(host: Host) -> Check:
    """Only told, as nothing needs it."""
    return Check("BTF", "ok", "present" if host.has_btf else "absent; not needed")


def _lockdown(host: Host) -> Check:
    if host.lockdown is None:
        return Check(
            "lockdown", "ok", "cannot be told: this kernel has none, or securityfs is not mounted here"
        )
    if host.lockdown == "confidentiality":
        what = "confidentiality: no BPF program may read a target's memory"
        return Check("lockdown", "missing", what, "boot with lockdown=integrity")
    return Check("lockdown", "ok", f"{host.lockdown}: no hindrance")


def _bpf_rights(host: Host) -> Check:
    name, held = "rights to trace", host.capabilities
    if host.in_user_namespace:
        what = "inside a user namespace: what it calls root may not load BPF programs"
        return Check(name, "missing", what, "run the agent in the initial user namespace (hostUsers: true)")
    if "SYS_ADMIN" in held:
        return Check(name, "ok", "CAP_SYS_ADMIN")
    if not {"BPF", "PERFMON"} <= held:
        return Check(name, "missing", "neither CAP_SYS_ADMIN nor CAP_BPF with CAP_PERFMON", AS_ROOT)
    if host.kernel >= UPROBE_LINKS_KERNEL:
        return Check(name, "ok", "CAP_BPF and CAP_PERFMON")
    what = "no CAP_SYS_ADMIN, which uprobes ask for before Linux 6.10, if updated since July 2025"
    return Check(name, "degraded", what, AS_ROOT)


def _rights_over_targets(host: Host) -> list[Check]:
    """Capabilities that matter for some processes: other users', with more rights, with an upgraded libc."""
    losses = {
        "SYS_PTRACE": "libc, sockets and system calls of processes with other rights are out of reach",
        "DAC_READ_SEARCH": "descriptors and system calls of other users' processes are out of reach",
        "CHECKPOINT_RESTORE": "a libc whose file was deleted or replaced since is out of reach",
    }
    implied_by = {"DAC_READ_SEARCH": "DAC_OVERRIDE", "CHECKPOINT_RESTORE": "SYS_ADMIN"}
    checks = []
    for name, loss in losses.items():
        held = bool({name, implied_by.get(name)} & host.capabilities)
        status: Status = "ok" if held else "degraded"
        checks.append(Check(f"CAP_{name}", status, "held" if held else loss, None if held else AS_ROOT))
    return checks


def _bcc(host: Host) -> Check:
    if host.bcc is None:
        what = "the Python package bcc is not installed, or not visible to this interpreter"
        return Check(
            "bcc", "missing", what, f"{INSTALL_BCC} (a virtual environment needs --system-site-packages)"
        )
    if not host.bcc.is_tracer:
        what = f"{host.bcc.directory} is another package of that name, from PyPI"
        return Check("bcc", "missing", what, f"pip uninstall bcc; {INSTALL_BCC}")
    return Check("bcc", "ok", host.bcc.version or "version unknown")


def _uprobes(host: Host) -> Check:
    if host.has_uprobes:
        return Check("uprobes", "ok", "through perf_event_open")
    what = "this kernel offers none (no /sys/bus/event_source/devices/uprobe)"
    return Check(
        "uprobes", "missing", what, "boot a kernel with CONFIG_UPROBE_EVENTS=y; in a container mount /sys"
    )


def _tracefs(host: Host) -> Check:
    remedy = "mount -t tracefs nodev /sys/kernel/tracing"
    if host.tracefs is not None:
        return Check("tracefs", "ok", host.tracefs)
    if host.can_mount_tracefs:
        return Check("tracefs", "degraded", "not mounted, but it can be", remedy)
    what = "not mounted here, and it cannot be: tracepoints cannot be found"
    return Check("tracefs", "missing", what, f"{remedy}; in a container mount the host's /sys/kernel/tracing")


def _cgroup2(host: Host) -> Check:
    name, loss = "cgroup v2", "DNS messages on the wire are not seen"
    if host.cgroup2 is None:
        return Check(name, "degraded", f"not mounted: {loss}", "mount -t cgroup2 none /sys/fs/cgroup/unified")
    if not host.capabilities & {"SYS_ADMIN", "NET_ADMIN"}:
        return Check(name, "degraded", f"{host.cgroup2}, but without CAP_NET_ADMIN: {loss}", AS_ROOT)
    if host.sees_all_cgroups is False:
        what = f"{host.cgroup2}, of this container only: {loss} of targets outside of it"
        return Check(name, "degraded", what, "mount the host's /sys/fs/cgroup into the container")
    return Check(name, "ok", host.cgroup2)


def _pid_namespace(host: Host) -> Check:
    if not host.is_proc_ours:
        return Check("pid namespace", "missing", OTHER_PROC, MOUNT_PROC)
    if host.in_initial_pidns is False:
        return Check(
            "pid namespace", "ok", "a container's own: targets are the processes that are visible in it"
        )
    return Check("pid namespace", "ok", "the host's own" if host.in_initial_pidns else "cannot be told")
