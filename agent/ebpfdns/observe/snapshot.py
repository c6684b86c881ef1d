"""What a stuck thread sits in right now: its system call, its stack, what it waits on, the sockets.

Owns: /proc/TID/{stat,syscall,wchan,fd,fdinfo} of one moment, and which threads have their stacks walked.
Must not know: which lookup the thread makes, or what follows from all this.

Each part is there or None (or empty) on its own: without the rights for one the others are still told. The
parts are read one after the other from a living process, so they may be of moments a little apart.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from ebpfdns.observe import proc_files, query_buffer, syscalls, user_stack
from ebpfdns.observe.memory import read_memory, read_texts
from ebpfdns.observe.process_snapshot import scheduled
from ebpfdns.observe.program_name import program_name
from ebpfdns.observe.sockets import inode_of, read_sockets
from ebpfdns.observe.unix_peers import Peers

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from ebpfdns.observe.sockets import Facts

MAX_WATCHED = 256  # descriptors of one thread that are looked at
MAX_STACKS = 64  # threads of one look, and of one scan, whose stacks are walked: 0.2 ms each
_WATCHED = re.compile(r"^tfd:\s*(\d+)", re.MULTILINE)


def thread_snapshot(pid: int, tid: int) -> Facts:
    """Look at one thread; plain values only."""
    return thread_snapshots(pid, [tid])[tid]


def thread_snapshots(
    pid: int,
    tids: Iterable[int],
    *,
    with_peers: bool = True,
    with_stacks: bool = True,
    max_stacks: int = MAX_STACKS,
    asking: Container[int] | None = None,
    peers: Peers | None = None,
) -> dict[int, Facts]:
    """Look at several threads of one process; what they share (descriptors, socket tables) is read once.

    Without the other ends of unix sockets, and stacks, it costs a tenth. Only of threads in `asking` (None:
    of all) the question is looked for: 0.4 ms each, and of others the probes have told it. `peers`: those
    that somebody else may have read in the same moment.
    """
    snapshots = {tid: _look_at(pid, tid) for tid in tids}
    # Descriptors belong to the process, but its first thread may have ended: any that is alive will do.
    alive_tid = next((tid for tid, facts in snapshots.items() if facts["state"] not in (None, "Z", "X")), pid)
    links = {fd: inode_of(alive_tid, fd) for facts in snapshots.values() for fd in facts["fds"]}
    inodes = {fd: inode for fd, inode in links.items() if inode is not None}
    sockets = read_sockets(alive_tid, frozenset(inodes.values()))
    unix = {inode for inode, facts in sockets.items() if facts["kind"] == "unix" and with_peers}
    for inode, peer in (peers or Peers(alive_tid)).of(unix).items():
        sockets[inode]["peer"] = peer
    for facts in snapshots.values():
        facts["sockets"] = [
            {"fd": fd, "inode": inodes[fd], **sockets.get(inodes[fd], {"kind": None})}
            for fd in facts["fds"]
            if fd in inodes
        ]
    if with_stacks:
        _add_stacks(pid, snapshots, asking, max_stacks)
    return snapshots


def _add_stacks(
    pid: int, snapshots: dict[int, Facts], asking: Container[int] | None, max_stacks: int
) -> None:
    """Functions that have not returned, innermost first; and the question that a resolver waits for."""
    asleep = [tid for tid, facts in snapshots.items() if facts["syscall"] not in (None, syscalls.RUNNING)]
    seen = user_stack.stacks_of(pid, asleep[:max_stacks]) if asleep[:max_stacks] else {}
    for tid, facts in snapshots.items():
        frames, stack = seen.get(tid, user_stack.NOTHING)
        facts["stack"] = [frame.symbol for frame in frames if frame.symbol is not None] or None
        is_wanted = asking is None or tid in asking
        question, servers = query_buffer.asked(stack, frames) if is_wanted else None, []
        if is_wanted and any(map(_is_unconnected, facts["sockets"])):
            servers = query_buffer.servers_near(stack)
            question = question or (query_buffer.asked_at_the_end(stack) if servers else None)
        facts["asked"] = question and {
            "name": question.name,
            "types": [*question.types],
            "ids": [*question.ids],
            "program_name": program_name(stack, frames, question.name, functools.partial(read_texts, tid)),
        }
        if facts["asked"] and servers:
            facts["asked"]["servers"] = servers


def _is_unconnected(socket: Facts) -> bool:
    """A UDP socket that may send to anybody: musl's, while it asks."""
    return socket["kind"] == "udp" and socket.get("remote") is None


def _look_at(pid: int, tid: int) -> Facts:
    """All but the sockets."""
    directory = f"/proc/{pid}/task/{tid}"
    call = syscalls.parse_call(proc_files.text(f"{directory}/syscall"))
    fds = syscalls.waited_fds(call, functools.partial(read_memory, tid))
    epoll_fd = fds[0] if call.name in syscalls.EPOLL_WAITS and fds else None
    if epoll_fd is not None:
        fds = [int(fd) for fd in _WATCHED.findall(proc_files.text(f"{directory}/fdinfo/{epoll_fd}"))]
    name, _, rest = proc_files.text(f"{directory}/stat").partition(" (")[2].rpartition(") ")
    run_ms, wait_ms = scheduled(proc_files.text(f"{directory}/schedstat"))
    return {
        "name": name or None,
        "state": rest[:1] or None,
        "run_ms": run_ms,
        "wait_ms": wait_ms,
        "syscall": call.name,
        "syscall_number": call.number,
        "args": list(call.arguments),
        "wchan": _wait_channel(proc_files.text(f"{directory}/wchan")),
        "epoll_fd": epoll_fd,
        "fds": fds[:MAX_WATCHED],
        "fds_total": len(fds),
    }


def _wait_channel(text: str) -> str | None:
    """The kernel function a thread sleeps in, without what the compiler added to its name."""
    return None if text == "0" else text.partition(".")[0] or None
