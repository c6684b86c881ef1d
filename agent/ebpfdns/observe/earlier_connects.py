"""Connects that were under way when tracing began: found by a look at threads and sockets, and followed.

Owns: which those are, and how each goes on. Must not know: lines, causes.

A thread inside connect() gets the record that a probe would have made: the return of that system call is
seen, so the kernel ends it, and knows how. A socket that connects while its program does something else is
not known to the kernel's programs, so the socket tables tell: no longer SYN_SENT is up; gone is ended, and
how was not seen.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import EARLIER_BIT, ConnectFlag, Counter, FrameKind, Status
from ebpfdns.model.decode import AF_INET, AF_INET6, AF_UNIX
from ebpfdns.observe import last_run, memory, proc_files, snapshot, syscalls
from ebpfdns.observe.leftovers import ANY_AGE_NS
from ebpfdns.observe.processes import threads
from ebpfdns.observe.sockets import inode_of, read_sockets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.observe.target import Target

MS = 1_000_000
LOOK_EVERY_NS = 250 * MS
#: One that is seen missing in a table that changes meanwhile may be there.
STRIKES = 2
#: A SYN is sent again after a second, and then after a second or more, however many times.
SYN_AGAIN_NS = 1000 * MS
THREAD_BIT = 1 << 63
SYN_SENT = "SYN_SENT"
TCP, TCP_SYN_SENT = 6, 2
MAX_SOCKADDR = 2 + boundary.PATH_BYTES
_AT = {field: at for field, at, _ in boundary.CONNECT.offsets()}
_INODE_COLUMN = 9


@dataclass(slots=True)
class Followed:
    """A socket that connects by itself."""

    pid: int
    inode: int
    record: bytearray
    strikes: int = 0


class EarlierConnects:
    """All of them, of one kernel."""

    def __init__(self, maps: KernelMaps, dns_ports: frozenset[int], *, knows_host_ids: bool) -> None:
        self._maps = maps
        self._ports = dns_ports
        self._knows_host_ids = knows_host_ids
        self._followed: list[Followed] = []
        self._looked_ns = 0

    def find(self, targets: Iterable[Target], now_ns: int) -> None:
        """Look at every thread and socket of the targets, whose probes are live."""
        for target in targets:
            blocking = self._find_blocking(target.pid, now_ns) if self._knows_host_ids else set()
            connecting = _connecting(target.process.alive_tid)
            known = self._known_descriptors(target.pid) if connecting else set()
            for inode, fd in connecting.items():
                if inode not in blocking and fd not in known:
                    self._follow(target, inode, fd, now_ns)

    def _known_descriptors(self, pid: int) -> set[int]:
        """Those whose connect a probe has seen: it began after the probes were live."""
        seen = map(boundary.CONNECT.unpack, self._maps.open_connects(ANY_AGE_NS))
        return {connect.fd for connect in seen if connect.pid == pid}

    def open(self) -> list[bytes]:
        """Struct connect of those that the kernel does not hold."""
        return [bytes(followed.record) for followed in self._followed]

    def look(self, now_ns: int) -> list[bytes]:
        """Look at those again; frames of the ones that have ended."""
        if not self._followed or now_ns - self._looked_ns < LOOK_EVERY_NS:
            return []
        self._looked_ns = now_ns
        by_pid: dict[int, list[Followed]] = {}
        for followed in self._followed:
            by_pid.setdefault(followed.pid, []).append(followed)
        frames = []
        for pid, those in by_pid.items():
            tables = read_sockets(pid, frozenset(followed.inode for followed in those))
            frames += [frame for one in those if (frame := self._goes_on(one, tables.get(one.inode), now_ns))]
        return frames

    def end_of(self, pid: int, now_ns: int) -> list[bytes]:
        """Frames of those of a process that is gone."""
        those = [followed for followed in self._followed if followed.pid == pid]
        return [self._end(followed, Status.UNSEEN, now_ns) for followed in those]

    # One of them.

    def _find_blocking(self, pid: int, now_ns: int) -> set[int]:
        """Threads inside connect(): the inodes of their sockets."""
        places = {tid: proc_files.syscall(pid, tid) for tid in threads(pid)}
        waiting = [tid for tid, text in places.items() if syscalls.parse_call(text).name == "connect"]
        found = set()
        asleep = last_run.asleep_ns(pid, waiting)
        for tid, facts in snapshot.thread_snapshots(pid, waiting).items():
            waited: dict[str, Any] = next(iter(facts["sockets"]), {})
            record = _record_of_call(pid, tid, facts, waited)
            if record is None or waited.get("kind") == "udp":
                continue
            key = THREAD_BIT | pid << 32 | tid
            since_ns = now_ns - max(asleep.get(tid, 0), (waited.get("retransmits") or 0) * SYN_AGAIN_NS)
            self._complete(record, key, since_ns, waited)
            if self._maps.hold_earlier_connect(key, bytes(record)):
                if proc_files.syscall(pid, tid) != places[tid] and self._maps.drop_connect(key):
                    continue  # it had returned before it was put there
                self._maps.count_found(Counter.CONNECTS_STARTED)
            found.add(waited.get("inode", 0))  # also of one that began after the probes were live
        return found

    def _follow(self, target: Target, inode: int, fd: int, now_ns: int) -> None:
        facts = read_sockets(target.process.alive_tid, frozenset({inode})).get(inode, {})
        if facts.get("state") != SYN_SENT or not facts.get("remote"):
            return
        record = bytearray(boundary.CONNECT.size)
        struct.pack_into("=IIII", record, _AT["pid"], target.pid, 0, target.pid, 0)
        struct.pack_into("=I", record, _AT["fd"], fd)
        _put_address(record, *_address(facts["remote"]))
        since_ns = now_ns - (facts.get("retransmits") or 0) * SYN_AGAIN_NS
        self._complete(record, EARLIER_BIT | inode, since_ns, facts, ConnectFlag.NON_BLOCKING)
        self._followed.append(Followed(target.pid, inode, record))
        self._maps.count_found(Counter.CONNECTS_STARTED)

    def _complete(
        self, record: bytearray, key: int, since_ns: int, facts: Mapping[str, Any], flags: int = 0
    ) -> None:
        port = struct.unpack_from("=H", record, _AT["port"])[0]
        flags |= ConnectFlag.BEFORE_ATTACH | (ConnectFlag.IN_LOOKUP if port in self._ports else 0)
        struct.pack_into("=IIQQ", record, 0, FrameKind.CONNECT, flags, key, since_ns)
        if facts.get("kind") == "tcp":
            record[_AT["transport"]] = TCP
        _put_state(record, facts)

    def _goes_on(self, followed: Followed, facts: Mapping[str, Any] | None, now_ns: int) -> bytes | None:
        """Its last frame, once it has ended."""
        if facts is not None and facts.get("state") == SYN_SENT:
            followed.strikes = 0
            _put_state(followed.record, facts)
            return None
        followed.strikes += 1
        if facts is None and followed.strikes < STRIKES:
            return None
        return self._end(followed, Status.UNSEEN if facts is None else Status.OK, now_ns)

    def _end(self, followed: Followed, status: Status, now_ns: int) -> bytes:
        self._followed.remove(followed)
        self._maps.count_end(Counter.CONNECTS_OK if status == Status.OK else Counter.CONNECTS_UNSEEN)
        struct.pack_into("=Q", followed.record, _AT["end_ns"], now_ns)
        followed.record[_AT["status"]] = status
        return bytes(followed.record)


def refreshed(raw: bytes, facts: Mapping[str, Any] | None) -> bytes:
    """A record with what its thread's snapshot says of the socket that it connects."""
    seen = boundary.CONNECT.unpack(raw)
    if not seen.flags & ConnectFlag.BEFORE_ATTACH or not facts or facts.get("syscall") != "connect":
        return raw
    waited = next((one for one in facts.get("sockets") or () if one.get("fd") == seen.fd), None)
    if waited is None:
        return raw
    record = bytearray(raw)
    _put_state(record, waited)
    return bytes(record)


def _record_of_call(
    pid: int, tid: int, facts: Mapping[str, Any], waited: Mapping[str, Any]
) -> bytearray | None:
    """What a probe would have noted at the call's entry; None when its address cannot be read."""
    record = bytearray(boundary.CONNECT.size)
    fd, at, size = facts["args"][:3] if len(facts["args"]) > 2 else (0, 0, 0)  # noqa: PLR2004
    raw = memory.read_memory(pid, at, min(size & 0xFFFF_FFFF, MAX_SOCKADDR))
    family = int.from_bytes(raw[:2], "little")
    if family == AF_UNIX and len(raw) > 2:  # noqa: PLR2004
        _put_path(record, raw[2:])
    elif waited.get("remote"):
        _put_address(record, *_address(waited["remote"]))
    elif family in {AF_INET, AF_INET6} and len(raw) >= (8 if family == AF_INET else 24):
        address = raw[4:8] if family == AF_INET else raw[8:24]
        _put_address(record, family, address, int.from_bytes(raw[2:4], "big"))
    else:
        return None
    struct.pack_into("=IIII", record, _AT["pid"], pid, tid, pid, tid)
    struct.pack_into("=I", record, _AT["fd"], fd & 0xFFFF_FFFF)
    name = proc_files.raw(f"/proc/{pid}/task/{tid}/comm").rstrip(b"\n")[: boundary.COMM_BYTES - 1]
    record[_AT["comm"] : _AT["comm"] + len(name)] = name
    return record


def _put_path(record: bytearray, path: bytes) -> None:
    struct.pack_into("=H", record, _AT["family"], AF_UNIX)
    record[_AT["path_bytes"]] = len(path)
    record[_AT["path"] : _AT["path"] + len(path)] = path
    if path[:1] == b"\0":
        struct.pack_into("=I", record, _AT["flags"], ConnectFlag.PATH_IS_ABSTRACT)


def _put_address(record: bytearray, family: int, address: bytes, port: int) -> None:
    struct.pack_into("=HH", record, _AT["family"], family, port)
    record[_AT["address"] : _AT["address"] + len(address)] = address


def _put_state(record: bytearray, facts: Mapping[str, Any]) -> None:
    record[_AT["tcp_state"]] = TCP_SYN_SENT if facts.get("state") == SYN_SENT else 0
    struct.pack_into("=I", record, _AT["retransmits"], facts.get("retransmits") or 0)


def _address(remote: list[Any]) -> tuple[int, bytes, int]:
    ip = ipaddress.ip_address(remote[0])
    return (AF_INET if ip.version == 4 else AF_INET6), ip.packed, remote[1]  # noqa: PLR2004


def _connecting(pid: int) -> dict[int, int]:
    """Inode → descriptor of the process's sockets in SYN_SENT; most have none, and cost two small files."""
    inodes: set[int] = set()
    for table in ("tcp", "tcp6"):
        rows = (line.split() for line in proc_files.raw(f"/proc/{pid}/net/{table}").split(b"\n")[1:])
        inodes |= {int(row[_INODE_COLUMN]) for row in rows if len(row) > _INODE_COLUMN and row[3] == b"02"}
    found: dict[int, int] = {}
    if inodes:
        for fd in _descriptors(pid):
            inode = inode_of(pid, fd)
            if inode is not None and inode in inodes:
                found.setdefault(inode, fd)
    return found


def _descriptors(pid: int) -> list[int]:
    """Its descriptors; none when it is gone, or may not be looked at."""
    try:
        return list(map(int, os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208 - thousands
    except OSError:
        return []
