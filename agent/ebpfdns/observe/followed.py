"""Daemons that targets ask, such as systemd-resolved: found by their sockets, and traced beside the targets.

Owns: which daemons those are, and what a scan says of each. Must not know: lines, causes, who asks for what.

One is followed from the start when a target is configured to ask it, otherwise once a lookup waits for
it. Of it only its own questions and connections are seen; it may be in other namespaces than who asks it.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfdns import logs
from ebpfdns.correlate import items
from ebpfdns.errors import EbpfdnsError
from ebpfdns.model import boundary
from ebpfdns.model.decode import address_text
from ebpfdns.observe import leftovers, name_files, process_snapshot, resolv_conf, sockets
from ebpfdns.observe.resolved_settings import resolved_settings
from ebpfdns.observe.socket_owners import OwnerSearch, owner
from ebpfdns.observe.target import Target
from ebpfdns.observe.tcp_info import tcp_info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ebpfdns.observe.kernel import Kernel

Facts = dict[str, Any]

RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
NSCD = ("/run/nscd/socket", "/var/run/nscd/socket")
#: what systemd-resolved asks itself
UPLINKS = "/run/systemd/resolve/resolv.conf"
SERVICE_PATHS = frozenset({RESOLVE, *NSCD})
RESOLVED_NAME = "systemd-resolve"  # as /proc/PID/stat has it: 15 bytes
#: one behind the other
MAX_HOPS = 3
#: once a target is known, and mostly before anything is stuck: so it may take longer than in a scan
FIND_BUDGET_S = 0.15
MAX_FOLLOWED = 16
MAX_RECORDS = 64  # of one daemon, in one scan
_HEAD = struct.Struct("=IIQQQII")


class Followed:
    """Those of one session. `feed` takes what is to be told, `now` gives both clocks."""

    def __init__(
        self,
        kernel: Kernel,
        feed: Callable[[items.Item], None],
        now: Callable[[], dict[str, int]],
        *,
        is_wanted: bool,
    ) -> None:
        self._kernel = kernel
        self._feed = feed
        self._now = now
        self._is_wanted = is_wanted
        self._daemons: dict[int, Target] = {}
        self._left_alone: set[int] = set()  # targets themselves, the agent's own process, those that refuse
        self._lookups: dict[int, list[bytes]] = {}
        self._connects: dict[int, list[bytes]] = {}
        self._known_servers: set[tuple[int, str]] = set()

    # Who.

    def pids(self) -> tuple[int, ...]:
        """Those that are followed now: whoever looks for the other end of a socket finds them first."""
        return tuple(self._daemons)

    def leave_alone(self, pid: int) -> None:
        """A target is seen in full anyway."""
        self._left_alone.add(pid)

    def find(self, target_pid: int, tid: int, also: Iterable[str] = ()) -> None:
        """Follow the daemons that a process is configured to ask, or that serve these local addresses."""
        if not self._is_wanted:
            return
        asked = [*resolv_conf.resolv_conf(tid)["nameservers"], *also]
        self._known_servers |= {(target_pid, address) for address in asked}
        search = OwnerSearch(self._daemons, FIND_BUDGET_S)
        serving = self._serving(tid, asked, search)
        found = {*serving, *self._listening_at(tid, search)}
        for _ in range(MAX_HOPS):  # what they are configured to ask in their turn
            fresh = [pid for pid in found if pid not in self._daemons and self.follow(pid, serving.get(pid))]
            serving = {}
            for pid in fresh:
                serving |= self._serving(pid, _uplinks(pid), search)
            found = set(serving)

    @staticmethod
    def _serving(tid: int, addresses: Iterable[str], search: OwnerSearch) -> dict[int, list[str]]:
        """Who is behind those of the addresses that are of a thread's own host: pid → addresses."""
        local = [address for address in dict.fromkeys(addresses) if is_local(address)]
        serving: dict[int, list[str]] = {}
        for address, facts in (process_snapshot.listeners(tid, local, search) if local else {}).items():
            for pid in owners_of({address: facts}):
                serving.setdefault(pid, []).append(address)
        return serving

    def _listening_at(self, tid: int, search: OwnerSearch) -> set[int]:
        """Who listens at the paths that the process's name sources connect to."""
        sources = (name_files.nsswitch(f"/proc/{tid}/root") or {}).get("hosts") or []
        paths = {*NSCD, *([RESOLVE] if "resolve" in sources else [])}
        inodes = frozenset(sockets.unix_listeners(tid, paths).values())
        return {facts["pid"] for facts in search.owners(inodes).values()} if inodes else set()

    def follow(self, pid: int, serves: list[str] | None = None) -> bool:
        """Trace a daemon that answers here, if wanted and possible; whether it is traced now."""
        if pid in self._daemons or pid in self._left_alone:
            return True
        if not self._is_wanted or len(self._daemons) >= MAX_FOLLOWED:
            return False
        try:
            daemon = Target(pid)
            daemon.support(self._kernel)
        except (EbpfdnsError, ProcessLookupError, OSError) as error:
            self._left_alone.add(pid)
            logs.info("a daemon is not followed", pid=pid, reason=str(error))
            return False
        now = self._now()
        self._kernel.maps.add_target(pid, now["now_ns"], is_supporting=True)
        self._daemons[pid] = daemon
        is_resolved = owner(pid)["name"] == RESOLVED_NAME
        settings = resolved_settings(pid) if is_resolved else {}
        announced = daemon.announced(self._kernel, **now)
        self._feed(replace(announced, settings=settings, serves=serves or []))
        return True

    def drop_gone(self) -> None:
        """Those that have ended; they may be found again under another number."""
        for pid in [pid for pid, daemon in self._daemons.items() if daemon.has_exited()]:
            self._release(pid, "exited")

    def release(self) -> None:
        """All of them, at the end."""
        for pid in list(self._daemons):
            self._release(pid, "exited" if self._daemons[pid].has_exited() else "detached")

    def _release(self, pid: int, status: str) -> None:
        daemon = self._daemons.pop(pid)
        self._known_servers.clear()
        with contextlib.suppress(OSError):
            self._kernel.maps.remove_target(pid)
        self._feed(items.Gone(**self._now(), pid=pid, status=status))
        daemon.close()

    # What a scan says.

    def hold(self, lookups: Iterable[bytes], connects: Iterable[bytes]) -> None:
        """What the kernel has of daemons at this moment: struct lookup, struct connect."""
        self._lookups, self._connects = {}, {}
        for kept, raws in ((self._lookups, lookups), (self._connects, connects)):
            for raw in raws:
                kept.setdefault(_HEAD.unpack_from(raw)[5], []).append(raw)

    def prepare(self, lookups: Iterable[bytes], alive_tid: Callable[[int], int]) -> None:
        """Some of these may soon be stuck: who serves the local addresses they ask is followed by then."""
        if not self._is_wanted:
            return
        asked: dict[int, set[str]] = {}
        for raw in lookups:
            pid = _HEAD.unpack_from(raw)[5]
            for query in leftovers.queries_of(raw):
                address = address_text(query.family, query.server)
                if address is not None and is_local(address) and (pid, address) not in self._known_servers:
                    asked.setdefault(pid, set()).add(address)
        for pid, addresses in asked.items():
            self.find(pid, alive_tid(pid), sorted(addresses))

    def facts(self, pids: Iterable[int]) -> dict[str, Facts]:
        """Pid → what is known of each daemon, and of those that it asks in its turn."""
        found: dict[str, Facts] = {}
        wanted = list(dict.fromkeys(pids))
        for _ in range(MAX_HOPS):
            fresh = [pid for pid in wanted if str(pid) not in found and self.follow(pid)]
            found |= {str(pid): self._facts_of(pid) for pid in fresh}
            wanted = [pid for one in fresh for pid in owners_of(found[str(one)]["listeners"])]
        return found

    def _facts_of(self, pid: int) -> Facts:
        daemon = self._daemons.get(pid)
        tid = daemon.process.alive_tid if daemon else pid
        who = owner(pid)
        lookups = self._lookups.get(pid, [])[-MAX_RECORDS:]
        asked = process_snapshot.dns_sockets(tid) or []
        has_tcp = any(facts["kind"] == "tcp" for facts in asked)
        told = tcp_info(tid) if has_tcp else {}
        for facts in asked:
            if facts["inode"] in told:
                facts["tcp"] = told[facts["inode"]]
        search = OwnerSearch(self._daemons)
        remote = {facts["remote"][0] for facts in asked if facts.get("remote")} | set(_servers(lookups))
        local = sorted(filter(is_local, remote))
        return {
            **who,
            "sockets": asked,
            "lookups": lookups,
            "connects": self._connects.get(pid, [])[-MAX_RECORDS:],
            "settings": resolved_settings(tid) if who["name"] == RESOLVED_NAME else None,
            "listeners": process_snapshot.listeners(tid, local, search) if local else {},
        }


def _uplinks(pid: int) -> list[str]:
    """The servers that a daemon is configured to ask, where systemd-resolved writes them."""
    text = name_files.read_text(f"/proc/{pid}/root", UPLINKS) or ""
    told = resolv_conf.parse_resolv_conf(text.encode("utf-8", "backslashreplace"))
    return told["nameservers"]


def _servers(lookups: Iterable[bytes]) -> Iterator[str]:
    for raw in lookups:
        for query in leftovers.queries_of(raw):
            address = address_text(query.family, query.server)
            if address is not None:
                yield address


def is_local(address: str) -> bool:
    """Whether a daemon of this very network namespace serves it."""
    return address.startswith("127.") or address == "::1"


def owners_of(listeners: Mapping[str, Facts]) -> list[int]:
    """The pids behind these addresses, as `process_snapshot.listeners` tells them."""
    owners = (facts.get("owner") for facts in listeners.values())
    return [one["pid"] for one in owners if one]


def asked_daemons(processes: Mapping[str, Facts], threads: Mapping[str, Facts]) -> list[int]:
    """The pids of the name services that these processes may wait for, by their snapshots."""
    found: list[int] = []
    for snapshot in processes.values():
        found += owners_of(snapshot.get("listeners") or {})
    for snapshot in (*processes.values(), *threads.values()):
        for facts in snapshot.get("sockets") or ():
            peer = facts.get("peer") or {}
            if peer.get("path") in SERVICE_PATHS and peer.get("owner"):
                found.append(peer["owner"]["pid"])
    return found


def is_supporting(raw: bytes) -> bool:
    """Whether a struct lookup or struct connect is of a daemon."""
    return bool(_HEAD.unpack_from(raw)[1] & boundary.LookupFlag.SUPPORTING)
