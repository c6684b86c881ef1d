"""Which tracepoints the probes use, what is lost without each, and how their records must look.

Owns: these three lists and the checks made of them.
Must not know: how a tracepoint's layout is read, or how the checks are printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.commands.host_checks import Check

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.tracepoints import Layout

    #: tracepoint → its layout, None when the kernel lacks it
    LayoutOf = Callable[[str], Layout | None]

_STALLS = "stalls of event loops that wait with it are not reported"
_DESCRIPTORS = "that a process has no file descriptor left is not seen"
#: system call → what is not seen without its two tracepoints
SYSCALLS = {
    "connect": "connects are not reported",
    "epoll_wait": _STALLS,
    "epoll_pwait": _STALLS,
    "epoll_pwait2": _STALLS,
    "poll": _STALLS,
    "ppoll": _STALLS,
    "select": _STALLS,
    "pselect6": _STALLS,
}
#: arm64 never had these system calls
ONLY_AMD64 = frozenset({"epoll_wait", "poll", "select"})
#: tracepoint → what is not seen without it
TRACEPOINTS = {
    "sock/inet_sock_set_state": "TCP states during a connect are not told",
    "sock/inet_sk_error_report": "ICMP errors (port or host unreachable) are not told",
    "tcp/tcp_retransmit_skb": "TCP retransmits are known from snapshots only",
    "syscalls/sys_exit_socket": _DESCRIPTORS,
    "syscalls/sys_exit_openat": _DESCRIPTORS,
    "sched/sched_process_exit": "lookups of threads that have ended are noticed late",
    "sched/sched_process_exec": "a target that starts another program is not followed",
    "task/task_newtask": "new children are not followed (--children)",
}
#: what the probes read from a record, and where they expect it: (offset, size)
EXPECTED: dict[str, Layout] = {
    "sock/inet_sock_set_state": {
        "skaddr": (8, 8),
        "oldstate": (16, 4),
        "newstate": (20, 4),
        "sport": (24, 2),
        "dport": (26, 2),
        "family": (28, 2),
        "protocol": (30, 2),
        "saddr": (32, 4),
        "daddr": (36, 4),
        "saddr_v6": (40, 16),
        "daddr_v6": (56, 16),
    },
}
_NEWER = "a newer kernel, or one with CONFIG_FTRACE_SYSCALLS=y"


def tracepoint_checks(machine: str, layout_of: LayoutOf) -> list[Check]:
    """One check for each system call and each other tracepoint."""
    checks = [_syscall(call, loss, machine, layout_of) for call, loss in SYSCALLS.items()]
    return checks + [_tracepoint(name, loss, layout_of) for name, loss in TRACEPOINTS.items()]


def _syscall(call: str, loss: str, machine: str, layout_of: LayoutOf) -> Check:
    """Whether both ends of a system call can be seen."""
    title = f"tracepoint syscalls/{call}"
    if call in ONLY_AMD64 and machine == "aarch64":
        return Check(title, "ok", "this machine has no such system call")
    lacking = [way for way in ("enter", "exit") if layout_of(f"syscalls/sys_{way}_{call}") is None]
    if lacking:
        return Check(title, "degraded", f"no sys_{lacking[0]}_{call} in this kernel: {loss}", _NEWER)
    return Check(title, "ok", "enter and exit")


def _tracepoint(name: str, loss: str, layout_of: LayoutOf) -> Check:
    """Whether there is such a tracepoint, with a record as expected."""
    title = f"tracepoint {name}"
    layout = layout_of(name)
    if layout is None:
        return Check(title, "degraded", f"not in this kernel: {loss}", "a newer kernel")
    wrong = {
        field: layout.get(field)
        for field, place in EXPECTED.get(name, {}).items()
        if layout.get(field) != place
    }
    if wrong:
        told = ", ".join(f"{field} at {place or 'no place'}" for field, place in wrong.items())
        return Check(title, "degraded", f"its record differs ({told}): {loss}", "report it, with uname -r")
    return Check(title, "ok", "present")
