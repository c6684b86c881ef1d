"""What a stuck thread sits in: looked at from outside, in threads that are stuck on purpose."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.observe import proc_files, snapshot
from ebpfdns.observe.snapshot import thread_snapshot, thread_snapshots
from ebpfdns.observe.sockets import read_sockets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
DEADLINE_S = 20
TIMEOUT_MS = 60_000
POLLS = ("poll", "ppoll")
SELECTS = ("select", "pselect6")
EPOLLS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
#: A UDP socket in a network namespace of its own; its thread waits for an answer.
IN_ANOTHER_NAMESPACE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 53123))
print("ready", flush=True)
s.recv(1)
"""


def until_it_waits(pid: int, tid: int, calls: tuple[str, ...]) -> dict[str, Any]:
    """Look at a thread until it sleeps in one of these calls."""
    give_up_at = time.monotonic() + DEADLINE_S
    while time.monotonic() < give_up_at:
        found = thread_snapshot(pid, tid)
        if found["syscall"] in calls and found["state"] == "S":
            return found
        os.sched_yield()
    raise AssertionError(f"not in {calls}: {found}")


@contextlib.contextmanager
def stuck(body: Callable[[], object]) -> Iterator[int]:
    """A thread that runs `body`, which only returns when its socket is shut down."""
    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield thread.native_id or 0
    finally:
        thread.join()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected UDP sockets: the first waits, the second can wake it."""
    near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        near.bind(("127.0.0.1", 0))
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        yield near, far


def wait_in_poll(waiting: socket.socket) -> None:
    poller = select.poll()
    poller.register(waiting, select.POLLIN)
    poller.poll(TIMEOUT_MS)


def wait_in_select(waiting: socket.socket) -> None:
    select.select([waiting], [], [], TIMEOUT_MS / 1000)


def wait_in_epoll(waiting: socket.socket) -> None:
    with select.epoll() as poller:
        poller.register(waiting, select.EPOLLIN)
        poller.poll(TIMEOUT_MS / 1000)


def wait_in_recv(waiting: socket.socket) -> None:
    waiting.recv(1)


def wait_in_recvmsg(waiting: socket.socket) -> None:
    waiting.recvmsg(1)


def wait_in_read(waiting: socket.socket) -> None:
    os.read(waiting.fileno(), 1)


@pytest.mark.parametrize(
    ("wait", "calls"),
    [
        (wait_in_poll, POLLS),
        (wait_in_select, SELECTS),
        (wait_in_epoll, EPOLLS),
        (wait_in_recv, ("recvfrom",)),
        (wait_in_recvmsg, ("recvmsg",)),
        (wait_in_read, ("read",)),
    ],
)
def test_the_socket_a_thread_waits_for_is_named(
    pair: tuple[socket.socket, socket.socket], wait: Callable[[socket.socket], None], calls: tuple[str, ...]
) -> None:
    """Whatever call a thread waits in, its descriptor, and the socket behind it with both ends, are told."""
    near, far = pair
    with stuck(lambda: wait(near)) as tid:
        found = until_it_waits(os.getpid(), tid, calls)
        far.send(b"x")
    assert found["fds"] == [near.fileno()]
    assert found["fds_total"] == 1
    (seen,) = found["sockets"]
    assert seen["fd"] == near.fileno()
    assert seen["inode"] == os.fstat(near.fileno()).st_ino
    assert (seen["kind"], seen["state"]) == ("udp", "ESTABLISHED")
    assert seen["local"] == list(near.getsockname())
    assert seen["remote"] == list(far.getsockname())
    assert (seen["rx_queue_bytes"], seen["tx_queue_bytes"], seen["drops"]) == (0, 0, 0)


def test_an_unread_answer_is_seen_in_the_queue(pair: tuple[socket.socket, socket.socket]) -> None:
    """A datagram that nobody reads counts in the receive queue of the socket it came to."""
    near, far = pair
    far.send(b"an answer")
    busy, wake = socket.socketpair()
    with busy, wake:
        both = select.poll()
        both.register(busy, select.POLLIN)
        both.register(near, select.POLLPRI)  # not woken by ordinary data
        with stuck(lambda: both.poll(TIMEOUT_MS)) as tid:
            found = until_it_waits(os.getpid(), tid, POLLS)
            wake.send(b"x")
    stream, datagrams = sorted(found["sockets"], key=lambda seen: seen["fd"] == near.fileno())
    assert datagrams["rx_queue_bytes"] > 0
    assert (stream["kind"], stream["type"], stream["state"]) == ("unix", "stream", "CONNECTED")


def test_a_wait_without_sockets_has_none() -> None:
    """A thread that waits for another one sits in a futex, and for no descriptor."""
    done = threading.Event()
    with stuck(done.wait) as tid:
        found = until_it_waits(os.getpid(), tid, ("futex",))
        done.set()
    assert (found["fds"], found["sockets"]) == ([], [])
    assert len(found["args"]) == 6
    assert found["wchan"] is None or "futex" in found["wchan"]


def test_a_pipe_is_a_descriptor_but_no_socket() -> None:
    """What is not a socket is told as a descriptor only."""
    reader, writer = os.pipe()
    try:
        with stuck(lambda: os.read(reader, 1)) as tid:
            found = until_it_waits(os.getpid(), tid, ("read",))
            os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)
    assert (found["fds"], found["sockets"]) == ([reader], [])


def test_of_a_large_epoll_instance_the_first_descriptors_are_told(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Only so many descriptors are looked at; how many there are is told nevertheless."""
    monkeypatch.setattr(snapshot, "MAX_WATCHED", 1)
    near, far = pair
    with select.epoll() as poller:
        poller.register(near, select.EPOLLIN)
        poller.register(far, select.EPOLLIN)
        with stuck(lambda: poller.poll(TIMEOUT_MS / 1000)) as tid:
            found = until_it_waits(os.getpid(), tid, EPOLLS)
            far.send(b"x")
        assert found["epoll_fd"] == poller.fileno()
    assert (len(found["fds"]), found["fds_total"]) == (1, 2)


def test_many_threads_share_one_reading_of_the_tables(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket]
) -> None:
    """However many threads are stuck, the socket tables of their process are read once."""
    readings: list[frozenset[int]] = []

    def counted(pid: int, inodes: frozenset[int]) -> dict[int, dict[str, Any]]:
        readings.append(inodes)
        return read_sockets(pid, inodes)

    monkeypatch.setattr(snapshot, "read_sockets", counted)
    near, far = pair
    with stuck(lambda: wait_in_poll(near)) as one, stuck(lambda: wait_in_poll(near)) as two:
        until_it_waits(os.getpid(), one, POLLS)
        until_it_waits(os.getpid(), two, POLLS)
        readings.clear()
        found = thread_snapshots(os.getpid(), [one, two])
        far.send(b"x")
    assert readings == [frozenset({os.fstat(near.fileno()).st_ino})]
    assert found[one]["sockets"] == found[two]["sockets"] != []


def test_a_snapshot_is_plain_json(pair: tuple[socket.socket, socket.socket]) -> None:
    """It survives being written as JSON and read back, as a recording does."""
    near, far = pair
    with stuck(lambda: wait_in_poll(near)) as tid:
        found = until_it_waits(os.getpid(), tid, POLLS)
        far.send(b"x")
    assert json.loads(json.dumps(found)) == found


def test_a_thread_that_is_gone_has_nothing_to_tell() -> None:
    """Every part of a snapshot is there, and empty."""
    found = thread_snapshot(os.getpid(), 4194305)
    assert (found["state"], found["syscall"], found["wchan"]) == (None, None, None)
    assert found["args"] == found["fds"] == found["sockets"] == []


@pytest.mark.parametrize("part", ["syscall", "wchan", "stat"])
def test_each_part_is_optional(
    monkeypatch: pytest.MonkeyPatch, pair: tuple[socket.socket, socket.socket], part: str
) -> None:
    """When one file of /proc is refused, the others are still told."""
    near, far = pair
    read = proc_files.text
    with stuck(lambda: wait_in_poll(near)) as tid:
        until_it_waits(os.getpid(), tid, POLLS)
        monkeypatch.setattr(proc_files, "text", lambda path: "" if path.endswith(part) else read(path))
        found = thread_snapshot(os.getpid(), tid)
        far.send(b"x")
    assert (found["syscall"] is None) == (part == "syscall")
    assert (found["state"] is None) == (part == "stat")
    assert found["wchan"] is None or part != "wchan"


@needs_root
def test_sockets_of_another_network_namespace_are_told() -> None:
    """A target in a container has its sockets listed from its own network namespace."""
    argv = ["unshare", "--net", sys.executable, "-c", IN_ANOTHER_NAMESPACE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == b"ready\n"
        (seen,) = until_it_waits(target.pid, target.pid, ("recvfrom",))["sockets"]
        target.kill()
    assert (seen["kind"], seen["local"], seen["remote"]) == ("udp", ["0.0.0.0", 53123], None)  # noqa: S104
    assert seen["state"] == "UNCONNECTED"
