"""Waiting inside the process: locks, descriptors, name sources before DNS, the hosts file."""

from __future__ import annotations

from typing import Any

import pytest
from situations import EAI_AGAIN, NAME, START_NS, S, ask, both, rows, situation, tcp, thread, udp, verdict

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Lookup, Other, Query, Situation

EMFILE, ENFILE = 24, 23
WAIT, WAIT_PRIVATE, WAIT_BITSET_PRIVATE = 0, 128, 137
SERIAL, FORK, HOSTS = "gethostbyname_serialized", "fork_lock_inherited", "hosts_file_huge"
POOL = "threadpool_starved"
ORDER, COALESCED, NO_FD = "nsswitch_order_stall", "coalesced_wait", "fd_exhausted"


def in_lock(operation: int = WAIT_PRIVATE, value: int = 2, timeout: int = 0) -> dict[str, Any]:
    """A thread that waits for a lock of libc."""
    return thread(syscall="futex") | {"args": [0x7F00_0000_1000, operation, value, timeout, 0, 0]}


def other(*queries: Query, cause: str = "ns_silent", tid: int = 12, **fields: Any) -> Other:
    """Another open lookup of the process, in another thread."""
    about: dict[str, Any] = {
        "api": "gethostbyname",
        "name": b"first.lab.test",
        "start_ns": START_NS - S,
        "status": "in_flight",
    }
    lookup = Lookup(key=8, pid=10, tid=tid, host_pid=10, queries=queries, **{**about, **fields})
    return Other("10-1", lookup, cause, "No DNS server answers.")


def waiter(*others: Other, **more: Any) -> Situation:
    """A gethostbyname that has asked nobody and sits in a lock."""
    defaults: dict[str, Any] = {"api": "gethostbyname", "thread": in_lock(), "others": others}
    return situation(**{**defaults, **more})


@rows(
    ("another thread is inside and asks", waiter(other(ask())), SERIAL, "confirmed"),
    ("it began later, and got the lock", waiter(other(ask(), start_ns=START_NS + 9)), SERIAL, "confirmed"),
    (
        "the call's arguments were not read",
        waiter(other(ask()), thread=thread(syscall="futex")),
        SERIAL,
        "likely",
    ),
    ("the holder waits for nscd", waiter(other(cause="nscd_stall")), SERIAL, "likely"),
    ("the other waits for the lock too", waiter(other(cause=SERIAL)), "unknown", "possible"),
    ("nothing is known of the other", waiter(other(cause="unknown")), "unknown", "possible"),
    ("nobody is in there", waiter(), "unknown", "possible"),
    ("another function's lock", waiter(other(ask(), api="gethostbyname2")), "unknown", "possible"),
    ("the other one has ended", waiter(other(ask(), **EAI_AGAIN)), "unknown", "possible"),
    ("it is its own thread", waiter(other(ask(), tid=11)), "unknown", "possible"),
    (
        "a condition, not a lock",
        waiter(other(ask()), thread=in_lock(WAIT_BITSET_PRIVATE, 0)),
        "unknown",
        "possible",
    ),
    ("a wait with a time limit", waiter(other(ask()), thread=in_lock(timeout=1)), "unknown", "possible"),
    ("it is past the lock", waiter(other(ask()), queries=both()), "ns_silent", "likely"),
    ("getaddrinfo has no such lock", waiter(other(ask()), api="getaddrinfo"), "unknown", "possible"),
    ("nor has musl", waiter(other(ask()), resolver="musl"), "unknown", "possible"),
    ("events were lost", waiter(other(ask()), lost={"kernel_ring": 1}), SERIAL, "likely"),
)
def test_gethostbyname_serialized(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A wait for gethostbyname's lock is one when another thread is seen to be inside."""
    assert verdict(seen) == expected


def test_the_holder_is_named() -> None:
    """The evidence has the other lookup: its id, thread, name, age and cause."""
    cause = judge(waiter(other(cause=SERIAL, tid=13), other(ask())))
    assert cause is not None
    assert [fact.fact for fact in cause.evidence] == ["futex_wait_no_timeout", "leader_lookup"]
    assert cause.evidence[1].numbers == {
        "lookup": "10-1",
        "thread": 12,
        "name": "first.lab.test",
        "elapsed_ms": 2000.0,
        "queries": 1,
        "cause": "ns_silent",
    }


FORKED = {"forked_without_exec": True, "threads_total": 1}


def child(age: float = 1.0, **more: Any) -> Situation:
    """A forked process whose thread waits for a lock."""
    return waiter(**{"age": age, "process": FORKED, **more})


@rows(
    ("a single thread, for a second", child(), FORK, "confirmed"),
    ("whatever the function", child(api="getaddrinfo"), FORK, "confirmed"),
    ("too early", child(0.5), FORK, "likely"),
    ("how many threads was not seen", child(process={"forked_without_exec": True}), FORK, "likely"),
    ("others could release it", child(thread=in_lock(WAIT)), FORK, "likely"),
    ("other threads could", child(process={**FORKED, "threads_total": 2}), "unknown", "possible"),
    (
        "it started another program",
        child(process={**FORKED, "forked_without_exec": False}),
        "unknown",
        "possible",
    ),
    ("that was not seen", child(process={"threads_total": 1}), "unknown", "possible"),
    ("no lock", child(thread=in_lock(WAIT_PRIVATE, 0)), "unknown", "possible"),
    ("it has asked", child(queries=both()), "ns_silent", "likely"),
    ("it waits for a server", child(thread=thread(udp())), "unknown", "possible"),
)
def test_fork_lock_inherited(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A lock that nobody in a forked process can release is one when that was seen, and nothing less."""
    assert verdict(seen) == expected


@rows(
    (
        "no socket, no question",
        situation(age=0.001, descriptor_error=EMFILE, **EAI_AGAIN),
        NO_FD,
        "confirmed",
    ),
    ("nor on the host", situation(age=0.001, descriptor_error=ENFILE, **EAI_AGAIN), NO_FD, "confirmed"),
    (
        "some questions left",
        situation(both(), age=1.0, descriptor_error=EMFILE, **EAI_AGAIN),
        NO_FD,
        "likely",
    ),
    ("still in flight", situation(age=1.0, descriptor_error=EMFILE), NO_FD, "confirmed"),
    ("it went well in the end", situation(age=0.001, status="ok", descriptor_error=EMFILE), None, None),
    ("no such error", situation(age=0.001, **EAI_AGAIN), "unknown", "possible"),
)
def test_fd_exhausted(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A socket that was refused for want of descriptors is the cause, unless the lookup went well."""
    assert verdict(seen) == expected


def test_the_limit_is_told() -> None:
    """Where the process was looked at the evidence has its limit and how much of it is used."""
    cause = judge(situation(descriptor_error=EMFILE, process={"limits": {"nofile": 16}, "fds_total": 16}))
    assert cause is not None
    assert cause.evidence[0].numbers == {"errno": EMFILE, "error": "EMFILE", "fds": 16, "limit": 16}


SSS = {"nsswitch": {"hosts": ["files", "sss", "[NOTFOUND=return]", "dns"]}, "modules": ["libnss_sss.so.2"]}
SLEEPS = thread(syscall="clock_nanosleep")


def pipe(path: str | None) -> dict[str, Any]:
    """A unix socket as the snapshot tells it."""
    return {"fd": 5, "inode": 99, "kind": "unix", "state": "CONNECTED", "remote": None, "path": path}


def held(seen: dict[str, Any] = SLEEPS, age: float = 1.0, **more: Any) -> Situation:
    """A lookup that has asked nobody, in a process with sss before dns."""
    return situation(**{"age": age, "process": SSS, "thread": seen, **more})


@rows(
    ("it sleeps", held(), ORDER, "likely"),
    (
        "the module is on the stack",
        held(SLEEPS | {"stack": ["nanosleep", "_nss_sss_gethostbyname4_r"]}),
        ORDER,
        "confirmed",
    ),
    ("it waits for a local peer", held(thread(pipe("/var/lib/sss/pipes/nss"))), ORDER, "confirmed"),
    ("it waits for a remote one", held(thread(tcp() | {"remote": ["192.0.2.1", 389]})), ORDER, "confirmed"),
    ("too early", held(thread(pipe("/var/lib/sss/pipes/nss")), 0.5), ORDER, "likely"),
    (
        "its module is not there",
        held(process={**SSS, "modules": ["libnss_files.so.2"]}),
        "unknown",
        "possible",
    ),
    (
        "it comes after dns",
        held(process={**SSS, "nsswitch": {"hosts": ["files", "dns", "sss"]}}),
        "unknown",
        "possible",
    ),
    ("the order was not seen", held(process={"modules": ["libnss_sss.so.2"]}), "unknown", "possible"),
    ("a server was asked", held(queries=both()), "ns_silent", "likely"),
    ("it waits for a server", held(thread(udp())), "unknown", "possible"),
    ("it asks the kernel", held(thread({"kind": "netlink"})), "unknown", "possible"),
    ("it works", held(thread(state="R", syscall="running")), "unknown", "possible"),
    ("it waits for a lock", held(in_lock()), "unknown", "possible"),
    ("res_query passes by nsswitch", held(api="res_query"), "unknown", "possible"),
)
def test_nsswitch_order_stall(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A module before dns is blamed when it is there and nothing else can hold the lookup."""
    assert verdict(seen) == expected


WORKS = thread(state="R", syscall="running")


def reading(seen: dict[str, Any] = WORKS, size: int | None = 30_000_000, **more: Any) -> Situation:
    """A lookup that has asked nobody, on a host with a large hosts file."""
    hosts = {"size_bytes": size, "read_position": 4_000_000}
    return situation(**{"age": 0.5, "process": {"hosts_file": hosts}, "thread": seen, **more})


@rows(
    ("it works, and the file is open", reading(), HOSTS, "confirmed"),
    ("it reads", reading(thread(syscall="read", state="D")), HOSTS, "confirmed"),
    (
        "whether it is open was not seen",
        reading(process={"hosts_file": {"size_bytes": 2_000_000}}),
        HOSTS,
        "likely",
    ),
    ("the file is small", reading(size=999), "unknown", "possible"),
    ("its size was not seen", reading(size=None), "unknown", "possible"),
    ("it waits", reading(SLEEPS), "unknown", "possible"),
    ("it reads from a server", reading(thread(tcp(), syscall="read")), "unknown", "possible"),
    ("it has asked", reading(queries=both()), "ns_silent", "likely"),
)
def test_hosts_file_huge(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The hosts file is blamed for a thread that works when it is huge and no server was asked."""
    assert verdict(seen) == expected


def follower(*others: Other, **more: Any) -> Situation:
    """A lookup that has asked nobody and sits in a futex."""
    return situation(**{"thread": thread(syscall="futex"), "others": others, **more})


@rows(
    ("an older one asks for the same", follower(other(ask(), name=NAME.upper())), COALESCED, "possible"),
    ("for another name", follower(other(ask())), "unknown", "possible"),
    ("it has asked nobody either", follower(other(name=NAME)), "unknown", "possible"),
    ("it is younger", follower(other(ask(), name=NAME, start_ns=START_NS + 1)), "unknown", "possible"),
    ("it asks itself", follower(other(ask(), name=NAME), queries=both()), "ns_silent", "likely"),
)
def test_coalesced_wait(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """That equal lookups wait for each other is never more than possible."""
    assert verdict(seen) == expected


def queued(*others: Other, **more: Any) -> Situation:
    """A lookup in libuv's queue; its thread is the one that asked for it."""
    return situation(
        **{"api": "uv_getaddrinfo", "others": others, "thread": thread(syscall="epoll_wait"), **more}
    )


def worker(syscall: str | None, name: str = "libuv-worker") -> dict[str, Any]:
    """A thread of the pool, as the process's snapshot tells it."""
    return {"threads": [{"tid": 9, "name": name, "state": "D", "syscall": syscall}]}


HOLDER = other(ask(), api="getaddrinfo")


@rows(
    ("two lookups hold its half", queued(HOLDER, HOLDER), POOL, "confirmed"),
    ("too early", queued(HOLDER, HOLDER, age=0.5), POOL, "likely"),
    ("one lookup", queued(HOLDER), POOL, "likely"),
    ("those that wait too hold nothing", queued(other(api="uv_getaddrinfo")), POOL, "possible"),
    ("other work", queued(process=worker("fsync")), POOL, "likely"),
    ("idle workers", queued(process=worker("futex")), POOL, "possible"),
    ("threads of another kind", queued(process=worker("fsync", "worker")), POOL, "possible"),
    ("nothing is known", queued(), POOL, "possible"),
    ("a getaddrinfo has begun", queued(HOLDER, HOLDER, api="getaddrinfo"), "unknown", "possible"),
)
def test_threadpool_starved(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """What lies in the queue is behind those that hold the pool, as surely as they are known."""
    assert verdict(seen) == expected


@pytest.mark.parametrize("process", [None, {}, {"nsswitch": None, "modules": None, "hosts_file": None}])
def test_a_process_that_was_not_looked_at(process: dict[str, Any] | None) -> None:
    """Without a snapshot of the process nothing is concluded from it."""
    for seen in (waiter(process=process), held(process=process), reading(process=process)):
        assert verdict(seen) == ("unknown", "possible")
