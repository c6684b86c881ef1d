"""All of a process that may say why its lookups wait: threads, limits, sockets, files, routes, cgroup.

Owns: the parts of one moment put together, and /proc/PID/{stat,limits,maps,task}. Must not know: rules.

Each part is there or None on its own: without the rights for one the others are still told. What the
process's lookups share is read once for all of them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.observe import (
    conntrack,
    fragments,
    name_files,
    proc_files,
    processes,
    routes,
    socket_owners,
    sockets,
    syscalls,
)
from ebpfdns.observe.unix_peers import Peers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.cgroup_cpu import CpuWatch

Facts = dict[str, Any]

MAX_THREADS = 64
MAX_SOCKETS = 64
MAX_FDS = 1024
MAX_CHILDREN = 16
PF_FORKNOEXEC = 0x40  # include/linux/sched.h
DNS_PORTS = (53, 853)
DOCKER_SERVER = "127.0.0.11"  # Docker's NAT rules lead from its port 53 to another one of the same address
_NOFILE = re.compile(r"^Max open files\s+(\d+|unlimited)", re.MULTILINE)
_NSS = re.compile(r"/(libnss_[^/\s]+\.so[^/\s]*)$", re.MULTILINE)


def process_snapshot(
    pid: int,
    alive_tid: int,
    cpu: CpuWatch,
    nameservers: Sequence[str] = (),
    peers: Peers | None = None,
) -> Facts:
    """Look at one process. `alive_tid`: a thread of it that is alive, as its first one may have ended.

    `peers`: those that somebody else may read in the same moment.
    """
    root = f"/proc/{alive_tid}/root"
    peers = peers or Peers(alive_tid)
    found = {
        **_identity(pid),
        "limits": _limits(alive_tid),
        "nsswitch": name_files.nsswitch(root),
        "gai_conf": name_files.gai_conf(root),
        "hosts_file": name_files.hosts_file(root, alive_tid),
        "modules": _modules(alive_tid),
        **_threads(pid),
        **cpu.facts(alive_tid),
        "conntrack": conntrack.conntrack(alive_tid),
        "fragments": fragments.fragments(alive_tid),
        "children": _children(pid),
        "routes": routes.routes(alive_tid, nameservers) if netlink.is_loaded() else None,
        "listeners": listeners(alive_tid, nameservers, peers.search),
    }
    return found | _descriptors(alive_tid, peers)


def _identity(pid: int) -> Facts:
    """When it began, and whether it goes on in the program that its parent began."""
    stat = processes.read_stat(pid)
    return {
        "started_wall_ns": None if stat is None else stat.start_wall_ns,
        "forked_without_exec": None if stat is None else bool(stat.flags & PF_FORKNOEXEC),
    }


def _limits(tid: int) -> Facts | None:
    """{nofile}: the soft limit of descriptors; None in it: unlimited."""
    match = _NOFILE.search(proc_files.text(f"/proc/{tid}/limits"))
    return {"nofile": int(match[1]) if match[1].isdigit() else None} if match else None


def _modules(tid: int) -> list[str] | None:
    """Name service modules that are mapped, by their file names."""
    text = proc_files.text(f"/proc/{tid}/maps")
    return sorted(set(_NSS.findall(text))) if text else None


def _threads(pid: int) -> Facts:
    """{threads_total, threads: […]}: what each thread does."""
    tids = processes.threads(pid)
    return {"threads_total": len(tids) or None, "threads": [thread(pid, tid) for tid in tids[:MAX_THREADS]]}


def thread(pid: int, tid: int) -> Facts:
    """{tid, name, state, syscall, args, wchan, run_ms, wait_ms} of one thread; unknown: None."""
    directory = f"/proc/{pid}/task/{tid}"
    name, _, rest = proc_files.text(f"{directory}/stat").partition(" (")[2].rpartition(") ")
    call = syscalls.parse_call(proc_files.text(f"{directory}/syscall"))
    wchan = proc_files.text(f"{directory}/wchan")
    run_ms, wait_ms = scheduled(proc_files.text(f"{directory}/schedstat"))
    return {
        "tid": tid,
        "name": name or None,
        "state": rest[:1] or None,
        "syscall": call.name,
        "args": list(call.arguments),
        "wchan": None if wchan in ("", "0") else wchan.partition(".")[0],
        "run_ms": run_ms,
        "wait_ms": wait_ms,
    }


def scheduled(text: str) -> tuple[float | None, float | None]:
    """Milliseconds on a processor, and waiting for one, of a /proc/TID/schedstat."""
    words = text.split()
    if len(words) != 3 or not all(word.isdigit() for word in words):  # noqa: PLR2004 - run, wait, slices
        return None, None
    return int(words[0]) / 1e6, int(words[1]) / 1e6


def _descriptors(tid: int, peers: Peers | None = None) -> Facts:
    """{fds_total, sockets}: how many descriptors, and those sockets that may have to do with names."""
    try:
        fds = sorted(map(int, os.listdir(f"/proc/{tid}/fd")))  # noqa: PTH208 - numbers, not paths
    except OSError:
        return {"fds_total": None, "sockets": None}
    inodes = {fd: inode for fd in fds[:MAX_FDS] if (inode := sockets.inode_of(tid, fd)) is not None}
    table = sockets.read_sockets(tid, frozenset(inodes.values())) if inodes else {}
    kept = [
        {"fd": fd, "inode": inode, **table[inode]}
        for fd, inode in inodes.items()
        if inode in table and _matters(table[inode])
    ][:MAX_SOCKETS]
    of_unix = {facts["inode"] for facts in kept if facts["kind"] == "unix"}
    known = peers.of(of_unix) if peers is not None and netlink.is_loaded() else {}
    for facts in kept:
        if facts["kind"] == "unix":
            facts["peer"] = known.get(facts["inode"])
    return {"fds_total": len(fds), "sockets": kept}


def _matters(facts: Facts) -> bool:
    """Whether it goes to a DNS server, or to a local service."""
    remote = facts.get("remote")
    is_connected_locally = facts["kind"] == "unix" and facts.get("state") in ("CONNECTED", "CONNECTING")
    return is_connected_locally or (remote is not None and remote[1] in DNS_PORTS)


def _children(pid: int) -> list[Facts]:
    """{pid, name, sockets} of its descendants: their sockets to DNS servers."""
    found = []
    for child in processes.descendants(pid)[:MAX_CHILDREN]:
        told = socket_owners.owner(child)
        seen = dns_sockets(child)
        found.append({"pid": child, "name": told["name"], "sockets": seen})
    return found


def dns_sockets(pid: int) -> list[Facts] | None:
    """The sockets of a process to DNS servers; None: they may not be looked at."""
    facts = _descriptors(pid)["sockets"]
    return None if facts is None else [entry for entry in facts if entry["kind"] != "unix"]


def listeners(tid: int, nameservers: Sequence[str], search: socket_owners.OwnerSearch) -> Facts:
    """Loopback nameserver → {listening, owner, rx_queue_bytes} of UDP port 53; owner None: not found."""
    local = [address for address in nameservers if address.startswith("127.") or address == "::1"]
    bound = sockets.udp_bound(tid, DNS_PORTS[0]) if local else None
    if bound is None:
        return {}
    found: Facts = {}
    for address in local:
        wildcard = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - what others have bound
        here = bound.get(address) or bound.get(wildcard) or bound.get("::")
        if here is None and address == DOCKER_SERVER:
            here = (sockets.udp_bound(tid, None) or {}).get(address)
        owner = search.owners({here["inode"]}).get(here["inode"]) if here else None
        unread = here["rx_queue_bytes"] if here else None
        found[address] = {"listening": here is not None, "owner": owner, "rx_queue_bytes": unread}
    return found
