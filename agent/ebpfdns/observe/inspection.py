"""One look at how a process resolves names: all facts that `explain` asks for, and no tracing.

Owns: gathering them, and os-release, environ, mountinfo and the name service modules of a process.
Must not know: what follows from them. Parts that may not be read are told in `not_seen`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.observe import (
    elf_symbols,
    go_program,
    go_surroundings,
    go_waits,
    goroutines,
    last_run,
    libraries,
    links,
    name_files,
    proc_files,
    processes,
    resolver_waits,
    snapshot,
)
from ebpfdns.observe.cgroup_cpu import CpuWatch
from ebpfdns.observe.process_snapshot import process_snapshot
from ebpfdns.observe.resolv_conf import resolv_conf
from ebpfdns.publish.lines import printable_text, rfc3339

if TYPE_CHECKING:
    from ebpfdns.observe.processes import Process

Facts = dict[str, Any]

MAX_THREADS = 256
NS_PER_MS = 1_000_000
DNS_PORTS = frozenset({53, 853})
#: Settings of resolvers, resolv.conf(5), gethostbyname(3), go doc net
VARIABLES = ("RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES", "GODEBUG", "RESOLV_HOST_CONF")
LIBRARY_FOLDERS = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64"),
    *("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
    *("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
)
#: in libc itself since 2.34; and a name that glibc has no module for
NO_MODULE = frozenset({"files", "dns", "db", "compat"})
_COMMENT = re.compile(r"^\s*[#;](.*)$", re.MULTILINE)


def inspect(pid: int, watch: CpuWatch | None = None) -> Facts:
    """Look at a process; NoSuchTargetError when there is none."""
    netlink.load_beside().join()
    process = processes.read_process(pid)
    tid, root = process.alive_tid, process.root
    read = resolv_conf(tid)
    conf: Facts = dict(read)
    conf["comments"] = "\n".join(_COMMENT.findall(name_files.read_text(root, "/etc/resolv.conf") or ""))
    conf["links"] = links.links(root, "/etc/resolv.conf")
    facts = process_snapshot(pid, tid, watch or CpuWatch(), read["nameservers"])
    found = libraries.find_libraries(process)
    kinds = {library.kind for library in found}
    names = [f"{one.kind} {one.version}" if one.version else one.kind for one in found]
    facts |= {
        "pid": pid,
        "process": _identity(process),
        "container": _container(process),
        "os": _os(root),
        "state": _state(pid),
        "started_wall_ns": process.start_wall_ns,
        "resolv_conf": conf,
        "resolver": kinds.pop() if len(kinds) == 1 else "unknown",
        "go": None,
        "static": None,
        "libc": names[0] if names else None,
        "environment": _environment(tid),
        "mount": _mount(tid),
        "nss_modules": _modules(root, facts.get("nsswitch")),
        "threads": _threads(pid),
    }
    facts |= _program(tid)
    if facts["go"] and not found:
        facts["resolver"] = "go"
    facts |= _goroutines(tid, process.start_wall_ns) if facts["go"] else {}
    return facts | {"not_seen": _not_seen(facts, tid)}


def _program(tid: int) -> Facts:
    """{go, static}: whether Go built it, and whether it runs without a dynamic loader; None: not known."""
    try:
        fd = os.open(f"/proc/{tid}/exe", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {"go": None, "static": None}
    try:
        elf = elf_symbols.parse(fd)
    finally:
        os.close(fd)
    if elf is None:
        return {"go": None, "static": None}
    return {"go": ".go.buildinfo" in elf.section_names, "static": elf.is_static}


def _goroutines(tid: int, started_wall_ns: int) -> Facts:
    """{go_program, goroutines}: what decides between its resolvers, and the goroutines that look names up."""
    program = go_program.find(f"/proc/{tid}/exe")
    if program is None:
        return {}
    found = {"go_program": go_surroundings.go_surroundings(tid, program, started_wall_ns=started_wall_ns)}
    waiting = goroutines.open_goroutines(tid, program)
    if waiting is None:
        return found
    try:
        return found | {"goroutines": [go_waits.told(one) for one in go_waits.find(waiting)]}
    finally:
        waiting.close()


def _identity(process: Process) -> Facts:
    """As `process` of the event lines."""
    path = None if process.exe is None else printable_text(process.exe)
    executable = {"name": printable_text(process.name), "path": path}
    return {"pid": process.pid, "executable": executable, "start_time": rfc3339(process.start_wall_ns)}


def _container(process: Process) -> Facts | None:
    found = process.container
    return None if found is None or found.id is None else {"id": found.id, "runtime": found.runtime}


def _os(root: str) -> Facts | None:
    """{id, name} of os-release(5) in the root of the process: debian, ubuntu, rocky, alpine."""
    text = name_files.read_text(root, "/etc/os-release") or name_files.read_text(root, "/usr/lib/os-release")
    fields = dict(re.findall(r"^(ID|PRETTY_NAME)=\"?([^\"\n]*)\"?$", text or "", re.MULTILINE))
    if not fields:
        return None
    return {"id": fields.get("ID"), "name": printable_text(fields.get("PRETTY_NAME") or fields.get("ID", ""))}


def _state(pid: int) -> str | None:
    return proc_files.text(f"/proc/{pid}/stat").rpartition(") ")[2][:1] or None


def _environment(tid: int) -> dict[str, str] | None:
    """What its environment said about resolving when it started; None: may not be read."""
    try:
        raw = Path(f"/proc/{tid}/environ").read_bytes()
    except OSError:
        return None
    entries = (entry.partition(b"=") for entry in raw.split(b"\0"))
    pairs = {name.decode("utf-8", "replace"): value for name, _, value in entries}
    return {name: printable_text(os.fsdecode(pairs[name])) for name in VARIABLES if name in pairs}


def _mount(tid: int) -> Facts | None:
    """{source, is_deleted} when /etc/resolv.conf is a mount of its own."""
    for line in proc_files.text(f"/proc/{tid}/mountinfo").splitlines():
        words = line.split(" ")
        if len(words) > 5 and words[4] == "/etc/resolv.conf":  # noqa: PLR2004 - proc_pid_mountinfo(5)
            source = words[3]
            return {"source": source.removesuffix("//deleted"), "is_deleted": source.endswith("//deleted")}
    return None


def _modules(root: str, nsswitch: Facts | None) -> dict[str, bool]:
    """Name source → whether its library is in the root of the process."""
    names = [word for word in (nsswitch or {}).get("hosts") or () if not word.startswith("[")]
    return {name: _has_module(root, name) for name in names if name not in NO_MODULE and "/" not in name}


def _has_module(root: str, name: str) -> bool:
    places = (processes.path_in_root(root, f"{folder}/libnss_{name}.so.2") for folder in LIBRARY_FOLDERS)
    return any(map(os.path.exists, places))


def _threads(pid: int) -> list[Facts]:
    """Each thread's snapshot, and `lookup` when it is seen to be inside one."""
    tids = processes.threads(pid)[:MAX_THREADS]
    asleep_ns = last_run.asleep_ns(pid, tids)
    found = []
    for tid, facts in snapshot.thread_snapshots(pid, tids).items() if tids else ():
        wait = resolver_waits.resolver_wait(facts, DNS_PORTS)
        lookup = None if wait is None else {"seen_by": wait.kind, "api": wait.api, "name": _name(facts)}
        asleep_ms = round(asleep_ns[tid] / NS_PER_MS, 1) if tid in asleep_ns else None
        found.append({"tid": tid, **facts, "lookup": lookup, "asleep_ms": asleep_ms})
    return found


def _name(facts: Facts) -> str | None:
    """What a thread asks for: as its program wrote it, else as the question has it."""
    asked = facts.get("asked") or {}
    return asked.get("program_name") or asked.get("name")


def _not_seen(facts: Facts, tid: int) -> list[str]:
    """What was refused, so that an empty answer is not taken for a good one."""
    reasons = {
        "fds_total": "its descriptors and sockets",
        "environment": "its environment",
        "modules": "its mapped files",
        "nsswitch": "its nsswitch.conf",
        "routes": "routes to its nameservers",
    }
    refused = [text for key, text in reasons.items() if facts.get(key) is None]
    if not proc_files.text(f"/proc/{tid}/syscall"):
        refused.append("what its threads wait for")
    return [f"{text} (root sees it)" if os.geteuid() else text for text in refused]
