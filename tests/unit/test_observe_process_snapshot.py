"""The snapshot of a process: each part is what was arranged, and each may be missing on its own."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns import netlink
from ebpfdns.observe import cgroup_cpu, conntrack, name_files, process_snapshot, socket_owners, unix_peers
from ebpfdns.observe.cgroup_cpu import CpuWatch
from ebpfdns.observe.process_snapshot import process_snapshot as look_at

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and cgroups need root")

ME = os.getpid()
GONE = 4194305
V1_CPU = Path("/sys/fs/cgroup/cpu")
FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture(autouse=True, scope="module")
def netlink_is_loaded() -> None:
    netlink.load_beside().join()


def snapshot(pid: int = ME, *nameservers: str) -> dict[str, Any]:
    return look_at(pid, pid, CpuWatch(), nameservers)


@contextlib.contextmanager
def waiting(*argv: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that says a line when it is ready, until the end of the `with`."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE, **options) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline()
            yield program
        finally:
            program.kill()


# The whole.


def test_it_can_be_recorded() -> None:
    """All of it is plain values: it survives being written as JSON."""
    found = snapshot(ME, "127.0.0.53", "192.0.2.1")
    assert json.loads(json.dumps(found)) == found


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    """Every part is None or empty, and nothing fails."""
    found = snapshot(GONE, "127.0.0.53")
    assert {name for name, value in found.items() if value} == set()


def test_its_threads() -> None:
    """Each thread is there with what it sits in, how long it has run, and how long it had to wait."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        found = snapshot()
        assert found["threads_total"] >= 2
        waiter = next(entry for entry in found["threads"] if entry["tid"] == thread.native_id)
        assert waiter["state"] in {"S", "R"}
        assert waiter["run_ms"] >= 0
        assert waiter["wait_ms"] >= 0
    finally:
        done.set()
        thread.join()


@given(st.text())
def test_schedstat_is_three_numbers_or_nothing(text: str) -> None:
    """Anything but three numbers tells nothing."""
    run_ms, wait_ms = process_snapshot.scheduled(text)
    assert (run_ms is None) == (wait_ms is None)


def test_schedstat_has_nanoseconds() -> None:
    """They become milliseconds."""
    assert process_snapshot.scheduled("1500000 250000 7\n") == (1.5, 0.25)


def test_limits_and_descriptors() -> None:
    """How many descriptors there may be, and how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1031, hard), hard))
    try:
        with contextlib.ExitStack() as files:
            before = snapshot()["fds_total"]
            for _ in range(17):
                files.enter_context(open(os.devnull))  # noqa: PTH123
            found = snapshot()
            assert found["limits"] == {"nofile": min(1031, hard)}
            assert found["fds_total"] == before + 17
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_forked_without_exec() -> None:
    """A child that has not started a program of its own is told from one that has."""
    child = os.fork()
    if child == 0:
        while True:
            ctypes.CDLL(None).pause()
    try:
        assert snapshot(child)["forked_without_exec"] is True
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    with waiting("sh", "-c", "echo ready; read nothing") as program:
        assert snapshot(program.pid)["forked_without_exec"] is False


def test_only_sockets_that_matter() -> None:
    """A socket to a DNS server is told, one to another port is not."""
    with socket.socket(type=socket.SOCK_DGRAM) as dns, socket.socket(type=socket.SOCK_DGRAM) as other:
        dns.connect(("127.0.0.1", 53))
        other.connect(("127.0.0.1", 5300))
        told = {entry["fd"]: entry for entry in snapshot()["sockets"]}
        assert told[dns.fileno()]["remote"] == ["127.0.0.1", 53]
        assert other.fileno() not in told


def test_a_first_thread_that_has_ended() -> None:
    """Asked of another thread, all that is the whole process's is still told."""
    script = """
import ctypes, socket, threading
asks = socket.socket(type=socket.SOCK_DGRAM)
asks.connect(("127.0.0.1", 53))
leader = threading.get_native_id()
def wait():
    while open(f"/proc/self/task/{leader}/stat").read().rpartition(") ")[2][0] != "Z": pass
    print(threading.get_native_id(), flush=True)
    input()
threading.Thread(target=wait).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    argv = [sys.executable, "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        alive_tid = int(program.stdout.readline())
        found = look_at(program.pid, alive_tid, CpuWatch())
        program.kill()
    assert alive_tid != program.pid
    assert {entry["state"] for entry in found["threads"] if entry["tid"] == program.pid} == {"Z"}
    assert [entry["remote"] for entry in found["sockets"]] == [["127.0.0.1", 53]]
    assert found["limits"] is not None
    assert found["nsswitch"] is not None
    assert found["started_wall_ns"] > 0


def test_very_many_descriptors() -> None:
    """They are counted, and only so many of them are looked at and told."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with contextlib.ExitStack() as opened:
            before = snapshot()["fds_total"]
            asking = [opened.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(101)]
            for one in asking:
                one.connect(("127.0.0.1", 53))
            for _ in range(1009):
                opened.enter_context(open(os.devnull))  # noqa: PTH123
            found = snapshot()
            assert found["fds_total"] == before + 101 + 1009
            assert len(found["sockets"]) == process_snapshot.MAX_SOCKETS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_root
def test_another_root(tmp_path: Path) -> None:
    """Files are those of the process's own root directory; what it does not have there is absent."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nsswitch.conf").write_text("hosts: mymachines dns\n")
    (tmp_path / "etc/hosts").symlink_to("/etc/hosts.real")  # not the agent's own
    (tmp_path / "etc/hosts.real").write_text("192.0.2.7 seven\n")
    script = f"import os; os.chroot({str(tmp_path)!r}); os.chdir('/'); print('ready', flush=True); input()"
    with waiting(sys.executable, "-c", script) as program:
        found = snapshot(program.pid)
    assert found["nsswitch"] == {"present": True, "hosts": ["mymachines", "dns"]}
    assert found["gai_conf"] == {"present": False, "precedence": []}
    assert found["hosts_file"]["size_bytes"] == len("192.0.2.7 seven\n")


def test_when_it_began() -> None:
    """By the wall clock, to a hundredth of a second."""
    before_ns = time.time_ns()
    with waiting("sh", "-c", "echo ready; read nothing") as program:
        began_ns = snapshot(program.pid)["started_wall_ns"]
    assert before_ns - 20_000_000 <= began_ns <= time.time_ns()


@needs_root
def test_the_table_of_connections_is_that_of_the_process() -> None:
    """In a network namespace of its own the numbers are others than the agent's, or there are none."""
    with waiting("unshare", "--net", "sh", "-c", "echo ready; read nothing") as program:
        there = snapshot(program.pid)["conntrack"]
    assert (there is not None) == Path("/proc/sys/net/netfilter/nf_conntrack_count").exists()
    assert there is None or there["count"] == 0


@given(st.lists(st.text(), min_size=2, max_size=2))
def test_the_table_of_connections_has_two_numbers_or_none(words: list[str]) -> None:
    """Anything else tells nothing."""
    found = conntrack.parse(words)
    assert found is None or all(value >= 0 for value in found.values())


def test_children_and_their_dns_sockets() -> None:
    """What a child asks is told beside its name."""
    ask = "import socket; s = socket.socket(type=2); s.connect(('127.0.0.1', 53))"
    script = f"{ask}; print('ready', flush=True); input()"
    with waiting(sys.executable, "-c", script) as program:
        child = next(entry for entry in snapshot()["children"] if entry["pid"] == program.pid)
        assert child["name"] == Path(f"/proc/{program.pid}/comm").read_text().strip()
        assert [entry["remote"] for entry in child["sockets"]] == [["127.0.0.1", 53]]


@needs_root
def test_routes_are_those_of_the_process() -> None:
    """In a network namespace with nothing but a loopback that is down, no server can be reached."""
    with waiting("unshare", "--net", "sh", "-c", "echo ready; read nothing") as program:
        there = snapshot(program.pid, "192.0.2.1")["routes"]
        assert there["192.0.2.1"]["error"] == 101  # ENETUNREACH
    assert snapshot(ME, "127.0.0.1")["routes"]["127.0.0.1"]["kind"] == "local"


@needs_root
def test_nobody_listens_and_somebody_does() -> None:
    """Whether a loopback nameserver is anybody's, and whose, is told of the process's own network."""
    script = """
import ctypes, socket
ctypes.CDLL(None).unshare(0x40000000)
import fcntl, struct
control = socket.socket(type=2)
fcntl.ioctl(control, 0x8914, struct.pack("16sh", b"lo", 1))
stub = socket.socket(type=2)
stub.bind(("127.0.0.53", 53))
control.sendto(b"unread", ("127.0.0.53", 53))
print("ready", flush=True)
input()
"""
    with waiting(sys.executable, "-c", script) as program:
        found = snapshot(program.pid, "127.0.0.53", "127.0.0.54", "192.0.2.1")["listeners"]
        assert set(found) == {"127.0.0.53", "127.0.0.54"}
        assert found["127.0.0.53"]["listening"] is True
        assert found["127.0.0.53"]["rx_queue_bytes"] > 0
        assert found["127.0.0.53"]["owner"]["pid"] == program.pid
        assert found["127.0.0.54"] == {"listening": False, "owner": None, "rx_queue_bytes": None}


# Name files.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: files dns\n", ["files", "dns"]),
        ("passwd: files\nhosts:files  mymachines\tresolve [!UNAVAIL=return] dns # x\n", None),
        ("#hosts: files\n", []),
        ("", []),
        ("hosts: # nothing\n", []),
    ],
)
def test_sources_of_host_names(text: str, words: list[str] | None) -> None:
    """The words behind `hosts:` in their order, an action in brackets as one word."""
    expected = ["files", "mymachines", "resolve", "[!UNAVAIL=return]", "dns"] if words is None else words
    assert name_files.parse_nsswitch(text) == expected


@given(st.text())
def test_any_nsswitch_is_understood_or_ignored(text: str) -> None:
    """No text makes the parser fail."""
    assert all(name_files.parse_nsswitch(text)) or name_files.parse_nsswitch(text) == []


def test_a_root_with_files(tmp_path: Path) -> None:
    """Files are those below the root of the process; what is absent is told as absent."""
    (tmp_path / "etc").mkdir()
    assert name_files.nsswitch(str(tmp_path)) == {"present": False, "hosts": []}
    assert name_files.hosts_file(str(tmp_path), ME) is None
    (tmp_path / "etc/gai.conf").write_text("# comment\nprecedence ::ffff:0:0/96  100\n")
    (tmp_path / "etc/hosts").write_text("192.0.2.1 one\n" * 1009)
    assert name_files.gai_conf(str(tmp_path)) == {"present": True, "precedence": [["::ffff:0:0/96", "100"]]}
    assert name_files.nsswitch(f"{tmp_path}/no/such/root") is None
    with (tmp_path / "etc/hosts").open("rb", buffering=0) as reading:
        reading.read(101)
        found = name_files.hosts_file(str(tmp_path), ME)
    assert found is not None
    assert (found["size_bytes"], found["read_position"]) == (14 * 1009, 101)
    again = name_files.hosts_file(str(tmp_path), ME)
    assert again is not None
    assert again["read_position"] is None


# Unix sockets.


def pair(path: str) -> tuple[socket.socket, socket.socket]:
    """One that listens, and one that has connected to it and sent something."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(7)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.send(b"request")
    return listener, client


@needs_root
@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_peer_that_has_not_accepted(tmp_path: Path, *, is_abstract: bool) -> None:
    """Who listens is the owner, and how many wait to be accepted is told."""
    path = "\0ebpfdns-test" if is_abstract else str(tmp_path / "socket")
    listener, client = pair(path)
    with listener, client:
        inode = os.fstat(client.fileno()).st_ino
        peer = unix_peers.Peers(ME).of({inode})[inode]
    assert peer["path"] == ("@ebpfdns-test" if is_abstract else path)
    assert (peer["inode"], peer["listener_backlog"], peer["rx_queue_bytes"]) == (None, 1, None)
    assert peer["owner"]["pid"] == ME


@needs_root
def test_a_peer_that_does_not_read(tmp_path: Path) -> None:
    """Once accepted, what lies unread at the other end is told, and whose that end is."""
    listener, client = pair(str(tmp_path / "socket"))
    with listener, client:
        accepted, _ = listener.accept()
        with accepted:
            inode = os.fstat(client.fileno()).st_ino
            peer = unix_peers.Peers(ME).of({inode})[inode]
            assert peer["inode"] == os.fstat(accepted.fileno()).st_ino
            assert (peer["listener_backlog"], peer["rx_queue_bytes"]) == (0, len(b"request"))
            assert peer["owner"]["pid"] == ME
            told = {entry["fd"]: entry for entry in snapshot()["sockets"]}
            assert told[client.fileno()]["peer"] == peer


@needs_root
def test_a_pair_is_no_service() -> None:
    """Nobody is searched for at the other end of a socketpair: it has no name to be found by."""
    one, other = socket.socketpair()
    with one, other:
        inode = os.fstat(one.fileno()).st_ino
        peer = unix_peers.Peers(ME).of({inode})[inode]
    assert (peer["inode"] is not None, peer["path"], peer["owner"]) == (True, None, None)


def test_a_socket_without_a_peer() -> None:
    """One that nobody has connected has none, and neither has one that does not exist."""
    with socket.socket(socket.AF_UNIX) as alone:
        assert unix_peers.Peers(ME).of({os.fstat(alone.fileno()).st_ino, 1}) == {}
    assert unix_peers.Peers(GONE).of({1}) == {}


def test_who_owns_a_socket() -> None:
    """The process that has it open, its name and what it does; nothing for one that nobody has."""
    with waiting("sh", "-c", "echo ready; exec cat", stderr=subprocess.DEVNULL) as program:
        assert socket_owners.owner(program.pid)["pid"] == program.pid
    with socket.socket() as mine:
        inode = os.fstat(mine.fileno()).st_ino
        found = socket_owners.OwnerSearch().owners({inode, 1})
    assert set(found) == {inode}
    assert found[inode]["pid"] == ME


# The cgroup.


@given(st.text())
def test_a_cpu_stat_has_a_number_or_not(text: str) -> None:
    """No text makes the parser fail."""
    found = cgroup_cpu.parse_throttled(text)
    assert found is None or found >= 0


def test_both_kinds_of_cpu_stat() -> None:
    """Cgroup v2 counts microseconds, v1 nanoseconds."""
    assert cgroup_cpu.parse_throttled("usage_usec 9\nnr_throttled 1\nthrottled_usec 7\n") == 7000
    assert cgroup_cpu.parse_throttled("nr_periods 9\nnr_throttled 1\nthrottled_time 7\n") == 7
    assert cgroup_cpu.parse_throttled("usage_usec 9\n") is None


@contextlib.contextmanager
def cgroup(tree: Path) -> Iterator[Path]:
    """A cgroup of the test's own; what was put in has to have ended by its end."""
    if not (tree / "cgroup.procs").exists():
        pytest.skip(f"{tree} is not mounted here")
    directory = tree / f"ebpfdns-test-{ME}"
    directory.mkdir()
    try:
        yield directory
    finally:
        directory.rmdir()


@needs_root
def test_a_throttled_process() -> None:
    """How long a cgroup had to wait for its next period, of the time between two looks; and its limit."""
    busy = waiting("sh", "-c", "echo ready; while :; do :; done")
    with cgroup(V1_CPU) as directory, busy as program:
        (directory / "cgroup.procs").write_text(str(program.pid))
        (directory / "cpu.cfs_period_us").write_text("100000")
        (directory / "cpu.cfs_quota_us").write_text("5000")
        watch = CpuWatch()
        first = watch.facts(program.pid)["cpu"]
        assert (first["throttled_ms"], first["interval_ms"]) == (None, None)
        assert (first["quota_us"], first["period_us"]) == (5000, 100_000)
        second = first
        # Where others want the processor too, it is some time until the limit is what holds it.
        while (second["throttled_ms"] or 0) <= (second["interval_ms"] or 0) / 2:
            second = watch.facts(program.pid)["cpu"] or second
        assert second["interval_ms"] >= 200


def test_a_reading_is_kept_fresh_only() -> None:
    """What may soon be looked at is read now, and not again right away."""
    watch = CpuWatch()
    with mock.patch.object(watch, "facts") as facts:
        watch.keep_fresh(ME)
        watch.keep_fresh(ME)
        watch.keep_fresh(ME + 1)
    assert [call.args for call in facts.mock_calls] == [(ME,), (ME + 1,)]


@needs_root
def test_a_frozen_process() -> None:
    """Frozen, and thawed again."""
    idle = waiting("sh", "-c", "echo ready; read nothing")
    with cgroup(FREEZER) as directory, idle as program:
        (directory / "cgroup.procs").write_text(str(program.pid))
        assert CpuWatch().facts(program.pid)["frozen"] is False
        (directory / "freezer.state").write_text("FROZEN")
        try:
            assert CpuWatch().facts(program.pid)["frozen"] is True
        finally:
            (directory / "freezer.state").write_text("THAWED")


@needs_root
def test_without_rights_the_rest_is_told() -> None:
    """An ordinary user learns of root's process what is public, and None of the rest."""
    script = f"""
import json, os, sys
os.setresuid(65534, 65534, 65534)
from ebpfdns.observe.cgroup_cpu import CpuWatch
from ebpfdns.observe.process_snapshot import process_snapshot
print(json.dumps(process_snapshot({ME}, {ME}, CpuWatch())))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["threads_total"] >= 1
    assert found["forked_without_exec"] is False
    assert (found["fds_total"], found["sockets"], found["modules"]) == (None, None, None)
