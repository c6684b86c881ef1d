"""Who a pid is: identity, start time, namespaces, cgroup, children and threads.

Owns: /proc/PID for the identity of a process, and the way into its root directory.
Must not know: libc, DNS, BPF, or why a process is looked at.

What /proc refuses to tell (a process of another user, without CAP_SYS_PTRACE) is None, never guessed.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe import proc_files
from ebpfdns.observe.cgroups import ContainerIdentity, container_of, unified_path

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
NS_PER_S = 1_000_000_000
DELETED = " (deleted)"
DEAD_STATES = ("Z", "X", "x")
PF_KTHREAD = 0x0020_0000
MANY_THREADS = 64  # the children of each stand in a file of its own
MAX_SYMLINKS = 40  # as many as the kernel follows


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from an earlier one with the same pid by its start time."""

    pid: int  # in the agent's pid namespace
    vpid: int  # in its own, innermost one
    name: str
    exe: str | None
    start_ns: int  # on the boot clock, which counts time asleep
    start_wall_ns: int
    netns_inode: int | None
    pidns_inode: int | None
    cgroup2_path: str | None  # as its /proc/PID/cgroup has it; None without cgroup v2
    container: ContainerIdentity | None
    alive_tid: int  # its pid; another of its threads when the first one has ended before the others
    root: str  # its root directory, for the agent to open files in


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter here. `flags`: PF_… of linux/sched.h."""

    comm: str
    state: str
    parent_pid: int
    flags: int
    start_ticks: int

    @property
    def start_wall_ns(self) -> int:
        """When it began, by the wall clock."""
        return _boot_wall_ns() + self.start_ticks * NS_PER_S // CLOCK_TICKS_PER_S


def read_process(pid: int) -> Process:
    """All that /proc says about the process with this pid; NoSuchTargetError when there is none to trace."""
    stat = _read_stat(f"/proc/{pid}/stat")
    status = _read_status(pid)
    if stat is None or status is None:
        raise NoSuchTargetError(f"there is no process with pid {pid}", remedy="ps -e")
    leader_pid = int(status.get("Tgid", str(pid)))
    if leader_pid != pid:
        leader_name = thread_name(leader_pid, leader_pid) or "?"
        raise NoSuchTargetError(
            f"{pid} is a thread of process {leader_pid} ({leader_name}), not a process",
            remedy=f"use --pid {leader_pid}",
        )
    # The first thread may have ended (pthread_exit in main) while the others go on: then ask one of them.
    alive_tid = _alive_thread(pid)
    if alive_tid is None:
        raise NoSuchTargetError(
            f"process {pid} ({stat.comm}) has ended, uncollected by its parent {stat.parent_pid} (zombie)",
            remedy="ps -e",
        )
    if stat.flags & PF_KTHREAD:
        what = f"{pid} ({stat.comm}) is a kernel thread: it looks no names up"
        raise NoSuchTargetError(what, remedy="ps -e")
    exe = _program(alive_tid)
    cgroup_text = proc_files.text(f"/proc/{alive_tid}/cgroup")
    start_ns = stat.start_ticks * NS_PER_S // CLOCK_TICKS_PER_S
    return Process(
        pid=pid,
        vpid=int(status.get("NSpid", str(pid)).split()[-1]),
        name=posixpath.basename(exe) if exe else stat.comm,
        exe=exe,
        start_ns=start_ns,
        start_wall_ns=_boot_wall_ns() + start_ns,
        netns_inode=_inode(f"/proc/{alive_tid}/ns/net"),
        pidns_inode=_inode(f"/proc/{alive_tid}/ns/pid"),
        cgroup2_path=unified_path(cgroup_text),
        container=container_of(cgroup_text),
        alive_tid=alive_tid,
        root=f"/proc/{alive_tid}/root",
    )


def read_stat(pid: int) -> Stat | None:
    """What /proc/PID/stat says; None when it is gone."""
    return _read_stat(f"/proc/{pid}/stat")


def same_process(process: Process) -> bool:
    """Whether this very process is still there: the pid may belong to a later one, or to a zombie, by now."""
    stat = _read_stat(f"/proc/{process.pid}/stat")
    if stat is None or stat.start_ticks * NS_PER_S // CLOCK_TICKS_PER_S != process.start_ns:
        return False
    return stat.state not in DEAD_STATES or _alive_thread(process.pid) is not None


def children(pid: int) -> list[int]:
    """Pids of the processes that any thread of this one has started, and which are still there."""
    found: set[int] = set()
    tids = threads(pid)
    if len(tids) > MANY_THREADS and len(tids) > len(_pids()):
        return _children_by_parent(pid)
    for tid in tids:
        text = proc_files.text(f"/proc/{pid}/task/{tid}/children")
        if not text and not _tells_children():
            return _children_by_parent(pid)
        found.update(map(int, text.split()))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """Pids of its children, their children, and so on; not its own."""
    found: dict[int, None] = {}
    waiting = [pid]
    while waiting:
        fresh = [child for child in children(waiting.pop()) if child not in found]
        found.update(dict.fromkeys(fresh))
        waiting.extend(fresh)
    return sorted(found)


def threads(pid: int) -> list[int]:
    """Tids of all its threads, the leader's included; [] when it is gone."""
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))  # noqa: PTH208 - 10,000 threads
    except OSError:
        return []


def refusal(tid: int) -> str | None:
    """What /proc does not show of a process because the agent may not trace it; None: nothing is refused."""
    try:
        os.readlink(f"/proc/{tid}/exe")  # noqa: PTH115 - the kernel's answer, not a path
    except PermissionError:
        return "its program, libraries, memory and sockets"
    except OSError:
        return None
    try:
        os.close(os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError:
        return "its memory"
    except OSError:
        return None
    return None


def has_seccomp_filter(pid: int) -> bool:
    """Whether its system calls pass a filter (Docker's, say): `Seccomp: 2` in /proc/PID/status."""
    return (_read_status(pid) or {}).get("Seccomp") == "2"


def thread_name(pid: int, tid: int) -> str | None:
    """What the thread calls itself (at most 15 bytes); None when it is gone."""
    return proc_files.text(f"/proc/{pid}/task/{tid}/comm").removesuffix("\n") or None


def path_in_root(root: str, path: str) -> str:
    """Where `path` leads inside the directory `root`: symbolic links stay inside, as in a chroot.

    Plain `root + path` would follow an absolute link (/etc/resolv.conf → /run/…) into the agent's own files.
    """
    done: list[str] = []
    to_do = [part for part in path.split("/") if part]
    links = 0
    while to_do:
        part = to_do.pop(0)
        if part in (".", ".."):
            done = done[:-1] if part == ".." else done
            continue
        target = proc_files.link("/".join([root, *done, part]))
        if target is None or links >= MAX_SYMLINKS:
            done.append(part)
            continue
        links += 1
        done = [] if target.startswith("/") else done
        to_do = [part for part in target.split("/") if part] + to_do
    return "/".join([root, *done])


@functools.cache
def _tells_children() -> bool:
    """Whether this kernel keeps lists of children (CONFIG_PROC_CHILDREN)."""
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists()


def _children_by_parent(parent_pid: int) -> list[int]:
    """The same from every process's parent pid: mostly slower, but works on any kernel."""
    stats = {pid: _read_stat(f"/proc/{pid}/stat") for pid in _pids()}
    return sorted(
        child for child, stat in stats.items() if stat is not None and stat.parent_pid == parent_pid
    )


def _pids() -> list[int]:
    """Of all processes that are seen from here."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names, not paths


def _alive_thread(pid: int) -> int | None:
    """The leader's tid when it runs, else that of any running thread; None when all have ended."""
    for tid in [pid, *threads(pid)]:
        stat = _read_stat(f"/proc/{pid}/task/{tid}/stat")
        if stat is not None and stat.state not in DEAD_STATES:
            return tid
    return None


def _program(tid: int) -> str | None:
    """The path of its program, fit to be shown (bytes that are not UTF-8 are escaped); None when refused."""
    target = proc_files.link(f"/proc/{tid}/exe")
    return os.fsencode(target).decode("utf-8", "backslashreplace").removesuffix(DELETED) if target else None


def _read_stat(path: str) -> Stat | None:
    """Parse a stat file; the name in it may itself contain spaces and parentheses."""
    text = proc_files.text(path)
    match = re.fullmatch(r"\d+ \((.*)\) (\S) (.*)", text.rstrip("\n"), re.DOTALL)
    if match is None:
        return None
    comm, state, rest = match.groups()
    fields = rest.split()  # the first is field 4
    return Stat(
        comm=comm,
        state=state,
        parent_pid=int(fields[0]),
        flags=int(fields[5]),
        start_ticks=int(fields[18]),
    )


def _read_status(pid: int) -> dict[str, str] | None:
    """Parse /proc/PID/status."""
    text = proc_files.text(f"/proc/{pid}/status")
    if not text:
        return None
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _inode(path: str) -> int | None:
    """The inode number of what `path` leads to; None when it is gone or refused."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116 - one call, for every process looked at
    except OSError:
        return None


@functools.cache
def _boot_wall_ns() -> int:
    """When the boot clock was 0, asked once: a process keeps its start time when the wall clock steps."""
    tick_ns = NS_PER_S // CLOCK_TICKS_PER_S
    boot_wall_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return boot_wall_ns // tick_ns * tick_ns
