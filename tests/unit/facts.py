"""Small makers of frames, items and facts for the tests of the middle: a turned clock and a few names."""

from __future__ import annotations

import ipaddress
from typing import Any

import header
from header import number, packed

from ebpfdns.correlate import items
from ebpfdns.correlate.children import CHILD_BIT
from ebpfdns.model import boundary

S, MS = 1_000_000_000, 1_000_000
#: CLOCK_MONOTONIC and wall clock at second 0 of each test
BOOT_NS, WALL_NS = 1000 * S, 1_767_225_600 * S
PID, TID = 4242, 4250
HOST_KEY = PID << 32 | TID
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
TCP, UDP = 6, 17
SERVER, WEB = "192.0.2.53", "192.0.2.10"
NAME, WIRE_NAME = b"www.lab.test", b"\3www\3lab\4test\0"
ADDRESS = ipaddress.ip_address


def at(seconds: float) -> int:
    """Monotonic nanoseconds at a second of the test."""
    return BOOT_NS + round(seconds * S)


def clock(seconds: float) -> dict[str, int]:
    """Both clocks at a second of the test."""
    return {"now_ns": at(seconds), "wall_ns": WALL_NS + round(seconds * S)}


def started(seconds: float = 0, **fields: Any) -> items.Started:
    values: dict[str, Any] = {
        "version": "1",
        "host": "ci-7",
        "stuck_after_ns": S,
        "slow_after_ns": S // 10,
        "publish_all": False,
    }
    return items.Started(**clock(seconds), **(values | fields))


COVERAGE = {"libc": "glibc 2.36", "go": None, "go_resolver": None, "wire": True, "missing": []}


def attached(seconds: float = 0, pid: int = PID, **fields: Any) -> items.Attached:
    executable = {"name": "api.test", "path": "/usr/bin/api.test"}
    process = {"pid": pid, "executable": executable, "start_time": "2025-12-31T23:59:00.000000Z"}
    values: dict[str, Any] = {"process": process, "around": {}, "resolver": "glibc", "coverage": COVERAGE}
    return items.Attached(**clock(seconds), pid=pid, **(values | fields))


def query(
    server: str = SERVER, *, sent: float = 0.001, reply: float | None = None, **fields: Any
) -> dict[str, Any]:
    """The fields of a struct query for an A record; the seconds are the test's."""
    found: dict[str, Any] = {
        "socket": 0xFFFF_8881_0000_0000,
        "sent_ns": at(sent),
        "server": ADDRESS(server).packed,
        "family": AF_INET if ADDRESS(server).version == 4 else AF_INET6,
        "server_port": 53,
        "transport": UDP,
        "id": 7,
        "type": 1,
        "attempts": 1,
        "name": WIRE_NAME,
        "name_bytes": len(WIRE_NAME),
    }
    if reply is not None:
        found |= {"reply_ns": at(reply), "flags": number("QUERY_ANSWERED"), "answers": 1}
    return found | fields


def lookup(start: float = 0, *queries: dict[str, Any], end: float | None = None, **fields: Any) -> bytes:
    """A struct lookup: getaddrinfo(NAME) in flight, or ended as `status` says."""
    name = fields.get("name", NAME)
    found: dict[str, Any] = {
        "key": HOST_KEY,
        "start_ns": at(start),
        "pid": PID,
        "tid": TID,
        "host_pid": PID,
        "host_tid": TID,
        "api": number("API_GETADDRINFO"),
        "name": name,
        "name_bytes": len(name),
        "comm": b"worker",
    }
    if end is not None:
        found |= {"end_ns": at(end), "status": number("STATUS_OK")}
    return header.lookup_frame(list(queries), **(found | fields))


def wire_lookup(start: float = 0, *queries: dict[str, Any], end: float | None = None, **fields: Any) -> bytes:
    """A struct lookup that is known from packets only."""
    about = {
        "key": 1 << 63 | 5,
        "api": number("API_WIRE"),
        "flags": number("LOOKUP_NAME_IS_WIRE"),
        "name": WIRE_NAME,
    }
    return lookup(start, *queries, end=end, **(about | fields))


def connect(start: float = 0, *, end: float | None = None, **fields: Any) -> bytes:
    """A struct connect to a web server by TCP, waiting for the answer to its SYN, or ended."""
    found: dict[str, Any] = {
        "kind": number("FRAME_CONNECT"),
        "key": 0xFFFF_8881_0000_1000,
        "start_ns": at(start),
        "pid": PID,
        "tid": TID,
        "host_pid": PID,
        "host_tid": TID,
        "family": AF_INET,
        "port": 443,
        "transport": TCP,
        "tcp_state": 2,
        "fd": 5,
        "address": ADDRESS(WEB).packed,
        "comm": b"worker",
    }
    if end is not None:
        found |= {"end_ns": at(end), "status": number("STATUS_OK"), "tcp_state": 1}
    return packed("connect", **(found | fields))


def process_change(change: str, pid: int, parent_pid: int = PID) -> bytes:
    """A struct process_change: FORKED or EXECED."""
    kind, change_number = number("FRAME_PROCESS"), number(f"PROCESS_{change}")
    return packed("process_change", kind=kind, change=change_number, pid=pid, parent_pid=parent_pid)


def call(start: float = 0, **fields: Any) -> bytes:
    """A struct call: getaddrinfo that has asked nobody yet."""
    about = {"start_ns": at(start), "pid": PID, "tid": TID, "api": number("API_GETADDRINFO")}
    return packed("call", **(about | fields))


def wait(kind: str = "POLL", start: float = 0, **fields: Any) -> bytes:
    """A struct wait: in this call since that second."""
    about = {"start_ns": at(start), "pid": PID, "tid": TID, "fd": -1, "last_fd": -1}
    return packed("wait", **(about | {"wait_kind": number(f"WAIT_{kind}")} | fields))


def stall(away_since: float = 0, **fields: Any) -> items.Stall:
    """A thread that has come back from epoll for the last time at that second; fd 9 waits for it."""
    away = {"last_return_ns": at(away_since), "last_fd": 4, "returns": 2}
    values: dict[str, Any] = {
        "key": PID << 32 | TID,
        "wait": packed("wait", pid=PID, tid=TID, fd=4, **away),
        "thread_name": b"worker",
        "ready": [{"fd": 9, "kind": "eventfd", "is_edge_triggered": False, "ready_ns": 5}],
        "state": "R",
        "syscall": "running",
        "throttled_ns": None,
        "lookups": [],
    }
    return items.Stall(**(values | fields))


def stalls(seconds: float, *found: items.Stall) -> items.Stalls:
    return items.Stalls(**clock(seconds), stalls=list(found))


def child_lookup(found: float, **fields: Any) -> items.ChildLookup:
    """A thread of a child of the target, found in a lookup at that second."""
    values: dict[str, Any] = {
        "key": 9 << 32 | 9 | CHILD_BIT,
        "parent_pid": PID,
        "parent_name": "sh",
        "parent_syscall": "wait4",
        "pid": 9,
        "tid": 9,
        "found_ns": at(found),
        "seen_ns": at(found),
        "process": {"pid": 9, "executable": {"name": "getent", "path": "/bin/getent"}, "start_time": None},
        "thread": {"state": "S", "syscall": "poll", "sockets": []},
    }
    return items.ChildLookup(**(values | fields))


def frames(seconds: float, *raw: bytes) -> items.Frames:
    return items.Frames(**clock(seconds), frames=list(raw))


def scan(seconds: float, *lookups: bytes, **fields: Any) -> items.Scan:
    return items.Scan(**clock(seconds), lookups=list(lookups), **fields)


def stats(
    seconds: float, counts: dict[str, int] | None = None, rows: dict[int, list[int]] | None = None
) -> items.Stats:
    """Counters by their names in the header; rows of the histogram by number; all others zero."""
    counters = [0] * len(boundary.Counter)
    for name, value in (counts or {}).items():
        counters[number(name)] = value
    histograms = [[0] * (1 + boundary.HISTOGRAM_BUCKETS) for _ in range(boundary.LATENCIES)]
    for row, values in (rows or {}).items():
        histograms[row] = values
    bpf = {"run_ms": 1.5, "runs": 100, "map_bytes": 1 << 20}
    agent = {"cpu_ms": 12.5, "rss_bytes": 50_000_000, "bpf": bpf}
    return items.Stats(**clock(seconds), counters=counters, histograms=histograms, agent=agent)
