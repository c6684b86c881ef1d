"""Which program goes where: the table of all probes.

Owns: function names in bpf/*.c with their place of attachment, and what is not seen without each.
Must not know: how a probe is attached (`kernel`). A new probe is its function in bpf/ and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass

from ebpfdns.model.facts import DROPS_UNSEEN

# enum bpf_prog_type and bpf_attach_type of include/uapi/linux/bpf.h
KPROBE, TRACEPOINT, RAW_TRACEPOINT = 2, 5, 17
CGROUP_SKB, CGROUP_SOCK, CGROUP_SOCK_ADDR = 8, 9, 18
INGRESS, EGRESS, CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, SOCK_RELEASE = 0, 1, 10, 11, 14, 15, 34
TRACE_UPROBE_MULTI = 48


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """A program on a tracepoint. `loss`: what is not seen without it; `is_needed`: nothing is, then."""

    function: str
    event: str
    loss: str
    is_raw: bool = False
    is_needed: bool = False

    @property
    def call(self) -> str:
        """The system call, of a tracepoint at one."""
        return self.event.removeprefix("syscalls/sys_enter_").removeprefix("syscalls/sys_exit_")


@dataclass(frozen=True, slots=True)
class CgroupHook:
    """A program on the target's cgroup."""

    function: str
    kind: int
    attach_type: int


def _wait(call: str) -> tuple[Tracepoint, Tracepoint]:
    loss = f"time spent in {call} is not measured"
    return (
        Tracepoint(f"{call}_begins", f"syscalls/sys_enter_{call}", loss),
        Tracepoint(f"{call}_returns", f"syscalls/sys_exit_{call}", loss),
    )


_CONNECTS = "connects are not reported"
_ERRORS = "errors told by the network (port or host unreachable) are not seen"
_DESCRIPTORS = "that a process has no file descriptor left is not seen"
_STATES = "TCP connects are not followed"
#: Raw where it can be: the kernel passes over a tracepoint's programs while another tracepoint's program, of
#: whatever agent, is running on that CPU and was interrupted; of the raw ones, only over the same program.
TRACEPOINTS = (
    Tracepoint(
        "thread_exits",
        "sched_process_exit",
        "lookups of threads that end stay open",
        is_raw=True,
        is_needed=True,
    ),
    Tracepoint("program_execs", "sched_process_exec", "a target's new program is not followed", is_raw=True),
    Tracepoint("connect_returns", "syscalls/sys_exit_connect", _CONNECTS),
    Tracepoint("connect_begins", "syscalls/sys_enter_connect", _CONNECTS),
    Tracepoint("socket_returns", "syscalls/sys_exit_socket", _DESCRIPTORS),
    Tracepoint("openat_returns", "syscalls/sys_exit_openat", _DESCRIPTORS),
    Tracepoint("open_returns", "syscalls/sys_exit_open", _DESCRIPTORS),
    Tracepoint("tcp_state_changes", "sock/inet_sock_set_state", _STATES),
    Tracepoint("tcp_retransmits", "tcp_retransmit_skb", "TCP retransmits are not counted", is_raw=True),
    # The raw one first: the kernel calls them in the order they came; the second needs what the first notes.
    Tracepoint("socket_errs_raw", "inet_sk_error_report", _ERRORS, is_raw=True),
    Tracepoint("socket_errs", "sock/inet_sk_error_report", _ERRORS),
    Tracepoint("packet_dropped", "kfree_skb", DROPS_UNSEEN, is_raw=True),
    *_wait("epoll_wait"),
    *_wait("epoll_pwait"),
    *_wait("epoll_pwait2"),
    *_wait("poll"),
    *_wait("ppoll"),
    *_wait("select"),
    *_wait("pselect6"),
)
#: where the places in a socket are known, instead of `tcp_state_changes`
RAW_STATES = Tracepoint("raw_state_changes", "inet_sock_set_state", _STATES, is_raw=True)


def with_places() -> list[Tracepoint]:
    """The table where the places in a socket are known: raw ones tell all, `socket_errs` is not needed."""
    wanted = [RAW_STATES if point.function == "tcp_state_changes" else point for point in TRACEPOINTS]
    return [point for point in wanted if point.function != "socket_errs"]


FOLLOW = Tracepoint("task_is_made", "task/task_newtask", "children are not followed")
#: in a pid namespace of the agent's own, too: where a child's number is known
FOLLOW_INSIDE = tuple(
    Tracepoint("child_begins", f"syscalls/sys_exit_{call}", FOLLOW.loss)
    for call in ("clone", "clone3", "fork", "vfork")
)
#: arm64 never had these system calls
ONLY_AMD64 = frozenset({"epoll_wait", "poll", "select", "fork", "vfork", "open"})

CGROUP_HOOKS = (
    CgroupHook("socket_closes", CGROUP_SOCK, SOCK_RELEASE),
    CgroupHook("packet_arrives", CGROUP_SKB, INGRESS),
    CgroupHook("packet_leaves", CGROUP_SKB, EGRESS),
    CgroupHook("connects_v4", CGROUP_SOCK_ADDR, CONNECT4),
    CgroupHook("connects_v6", CGROUP_SOCK_ADDR, CONNECT6),
    CgroupHook("sends_v4", CGROUP_SOCK_ADDR, SENDMSG4),
    CgroupHook("sends_v6", CGROUP_SOCK_ADDR, SENDMSG6),
)

RETURN_FUNCTION = "call_returns"
#: library function → program at its entry; all share the one at return
CALLS = {
    name: f"{name}_begins"
    for name in (
        *("getaddrinfo", "gethostbyname", "gethostbyname2", "gethostbyname_r", "gethostbyname2_r"),
        *("gethostbyaddr", "gethostbyaddr_r", "getnameinfo"),
        *("res_query", "res_search", "res_send", "res_nquery", "res_nsearch", "res_nsend"),
    )
}
#: the same for all library functions at once, by a link that gives each its number
ALL_CALLS_FUNCTION = "library_call_begins"
#: at libuv's function, in processes that have it
POOL_FUNCTION = "uv_getaddrinfo_begins"
#: (map, function): jumps from one program into another
TAIL_CALLS = (
    ("rare_programs", "call_begins_in_open_call"),
    ("leaves_again", "packet_leaves"),
    ("arrives_again", "packet_arrives"),
    ("loop_programs", "loop_is_back"),
)
RARE_FUNCTION = "call_begins_in_open_call"
LOOP_FUNCTION = "loop_is_back"


def program_kind(function: str, *, by_link: bool = False) -> tuple[int, int]:
    """(program type, expected attach type) of a function; `by_link`: of those at library calls."""
    for hook in CGROUP_HOOKS:
        if hook.function == function:
            return hook.kind, hook.attach_type
    for point in (*TRACEPOINTS, RAW_STATES, FOLLOW, *FOLLOW_INSIDE):
        if point.function == function:
            return (RAW_TRACEPOINT if point.is_raw else TRACEPOINT), 0
    if function == LOOP_FUNCTION:
        return TRACEPOINT, 0
    return KPROBE, TRACE_UPROBE_MULTI if by_link else 0
