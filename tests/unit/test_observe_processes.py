"""Who a pid is: what /proc says of real processes, and how their cgroups name containers."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe import cgroups
from ebpfdns.observe.cgroups import ContainerIdentity
from ebpfdns.observe.processes import (
    children,
    descendants,
    path_in_root,
    read_process,
    same_process,
    thread_name,
    threads,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

ID = "0123456789abcdef" * 4
UID = "11111111-2222-3333-4444-555555555555"
POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
WAIT_FOR_END = "import sys; print('ready', flush=True); sys.stdin.read()"
#: Ends its first thread, and says so once the kernel shows that thread as a zombie.
LEADER_ENDS = """
import ctypes, os, sys, threading
def stay():
    stat = f"/proc/{os.getpid()}/stat"
    while open(stat).read().rpartition(") ")[2][0] != "Z":
        os.sched_yield()
    print("ready", flush=True)
    sys.stdin.read()
threading.Thread(target=stay).start()
ctypes.CDLL(None).syscall(93 if os.uname().machine == "aarch64" else 60, 0)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with start(sys.executable, "-c", WAIT_FOR_END) as process:
        yield process
        process.kill()


def start(*argv: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_process_is_described_as_it_is(child: subprocess.Popen[str]) -> None:
    """Pid, program and start time of a process that was just started are its own."""
    process = read_process(child.pid)
    assert (process.pid, process.alive_tid) == (child.pid, child.pid)
    assert process.exe == str(Path(sys.executable).resolve())
    assert process.name == Path(sys.executable).resolve().name
    assert process.netns_inode == Path("/proc/self/ns/net").stat().st_ino
    assert abs(time.time_ns() - process.start_wall_ns) < 60e9
    assert time.clock_gettime_ns(time.CLOCK_BOOTTIME) - process.start_ns < 60e9
    assert Path(process.root).samefile("/")


def test_a_later_process_with_the_same_pid_is_another(child: subprocess.Popen[str]) -> None:
    """A process is the same as long as its start time is; a reused pid is not, nor is one that ended."""
    process = read_process(child.pid)
    assert same_process(process)
    assert not same_process(dataclasses.replace(process, start_ns=process.start_ns - 10_000_000))
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not same_process(process), "a zombie is not the process any more"
    child.wait()
    assert not same_process(process), "nor is nothing"


def test_a_pid_that_nobody_has_is_refused_with_a_remedy() -> None:
    """Asking for a process that is not there says so, and how to find the right one."""
    with pytest.raises(NoSuchTargetError, match="no process with pid 4194305") as caught:
        read_process(4194305)  # beyond the kernel's own limit
    assert caught.value.remedy == "ps -e"


def test_a_zombie_is_refused_as_one(child: subprocess.Popen[str]) -> None:
    """A process that has ended, but was not collected, is no target, and the message says why."""
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NoSuchTargetError, match="zombie"):
        read_process(child.pid)


def test_a_thread_is_refused_and_its_process_named() -> None:
    """A tid that is not a pid is no target; the message and the remedy name the process it belongs to."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(NoSuchTargetError, match=f"a thread of process {os.getpid()}") as caught:
            read_process(thread.native_id or 0)
    finally:
        done.set()
        thread.join()
    assert caught.value.remedy == f"use --pid {os.getpid()}"


def test_a_process_outlives_its_first_thread() -> None:
    """A program whose main thread has ended is still a target, seen through a thread that is alive."""
    with start(sys.executable, "-c", LEADER_ENDS) as running:
        process = read_process(running.pid)
        assert process.alive_tid in threads(running.pid)
        assert process.alive_tid != running.pid
        assert process.exe == str(Path(sys.executable).resolve())
        assert Path(process.root).samefile("/")
        assert same_process(process)
        running.kill()


@pytest.mark.skipif(
    not Path("/proc/2/stat").exists(), reason="kernel threads are in the initial pid namespace"
)
def test_a_kernel_thread_is_refused() -> None:
    """A kernel thread looks no names up, and is refused as what it is."""
    with pytest.raises(NoSuchTargetError, match="kernel thread"):
        read_process(2)


def test_a_deleted_program_keeps_its_path(tmp_path: Path) -> None:
    """The path of a program that was deleted while it runs has no ` (deleted)` at its end."""
    program = tmp_path / "a (b) program"
    program.write_bytes(Path("/bin/cat").resolve().read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        program.unlink()
        process = read_process(running.pid)
        assert process.exe == str(program)
        assert process.name == "a (b) program"
        assert same_process(process), "a name with parentheses does not shift the fields of its stat line"
        running.kill()


def test_a_program_with_odd_bytes_in_its_name_can_be_shown(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are escaped: the name can be written as JSON."""
    program = os.fsencode(tmp_path) + b"/odd-\xff"
    shutil.copy(b"/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE) as running:
        assert read_process(running.pid).name == r"odd-\xff"
        running.kill()


def test_children_and_descendants_are_found() -> None:
    """A shell's child is its child, and both are descendants of whoever started the shell."""
    # Not `cat &`: a shell gives a background command /dev/null to read, so that it ends at once.
    with start("/bin/sh", "-c", "sleep 1000 & echo ready; wait") as shell:
        (sleeping,) = children(shell.pid)
        assert {shell.pid, sleeping} <= set(descendants(os.getpid()))
        assert sleeping not in children(os.getpid())
        os.kill(sleeping, signal.SIGKILL)


def test_threads_have_names_and_end() -> None:
    """A thread is listed with its name while it lives, and nothing is said of one that is gone."""
    me = os.getpid()
    assert me in threads(me)
    assert thread_name(me, me) == Path("/proc/self/comm").read_text(encoding="utf-8").rstrip("\n")
    assert threads(4194305) == []
    assert thread_name(me, 4194305) is None


@needs_root
def test_a_process_in_a_pid_namespace_has_two_pids() -> None:
    """The pid that the process itself sees is told beside the agent's."""
    argv = ("unshare", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", "echo ready; exec cat")
    with start(*argv) as outer:
        (inner,) = children(outer.pid)
        process = read_process(inner)
        assert (process.pid, process.vpid) == (inner, 1)
        assert process.pidns_inode != read_process(os.getpid()).pidns_inode
        outer.kill()


@pytest.mark.parametrize(
    ("links", "path", "end"),
    [
        ({}, "/etc/resolv.conf", "etc/resolv.conf"),
        ({"etc/resolv.conf": "/run/stub.conf"}, "/etc/resolv.conf", "run/stub.conf"),
        ({"etc/resolv.conf": "../run/stub.conf"}, "/etc/resolv.conf", "run/stub.conf"),
        ({"etc/resolv.conf": "../../../../run/x"}, "/etc/resolv.conf", "run/x"),
        ({"etc": "/usr/etc", "usr/etc/resolv.conf": "/x"}, "/etc/resolv.conf", "x"),
        ({"var": "/a", "a": "b", "b": "c"}, "/var/./x", "c/x"),
    ],
)
def test_a_path_stays_in_its_root(tmp_path: Path, links: dict[str, str], path: str, end: str) -> None:
    """Symbolic links, absolute ones and ones that climb too far too, lead to places inside the root."""
    for link, target in links.items():
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(target)
    assert path_in_root(str(tmp_path), path) == str(tmp_path / end)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """Links that lead to each other are followed as often as the kernel would, and no longer."""
    (tmp_path / "a").symlink_to("/b")
    (tmp_path / "b").symlink_to("/a")
    assert path_in_root(str(tmp_path), "/a") in {str(tmp_path / "a"), str(tmp_path / "b")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0::/\n", None),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/system.slice/podman.service\n", None),
        (f"0::/system.slice/docker-{ID}.scope\n", ContainerIdentity(ID, "docker", None)),
        (f"12:pids:/docker/{ID}\n0::/\n", ContainerIdentity(ID, "docker", None)),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ContainerIdentity(ID, "podman", None)),
        (f"0::/../{ID}\n", ContainerIdentity(ID, None, None)),
        (f"0::{POD}/cri-containerd-{ID}.scope\n", ContainerIdentity(ID, "containerd", UID)),
        (f"0::{POD}/crio-{ID}.scope\n", ContainerIdentity(ID, "cri-o", UID)),
        (f"0::{POD}:cri-containerd:{ID}\n", ContainerIdentity(ID, "containerd", UID)),
        (f"4:memory:/kubepods/besteffort/pod{UID}/{ID}\n0::/\n", ContainerIdentity(ID, None, UID)),
        (f"0::/kubepods/pod{ID[:32]}/{ID}\n", ContainerIdentity(ID, None, ID[:32])),
        (f"0::/kubepods/besteffort/pod{UID}\n", ContainerIdentity(None, None, UID)),
        (f"0::/docker/{ID}/docker/{ID[::-1]}\n", ContainerIdentity(ID[::-1], "docker", None)),
    ],
)
def test_a_cgroup_path_names_the_container(text: str, expected: ContainerIdentity | None) -> None:
    """Each runtime's way to name a cgroup gives id, runtime and pod; the innermost container counts."""
    assert cgroups.container_of(text) == expected


@given(st.text())
def test_any_cgroup_text_is_understood_or_not(text: str) -> None:
    """No text makes the parsers fail, and what they find is in it."""
    found = cgroups.container_of(text)
    assert found is None or found.id is None or found.id in text
    assert cgroups.unified_path(text) is None or "0::" in text


def test_mount_points_are_found_with_their_spaces() -> None:
    r"""A mount point is read with its escapes (\040 is a space), and only from lines of the asked kind."""
    text = (
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n"
        "41 31 0:38 / /sys/fs/a\\040b rw shared:9 - cgroup2 cgroup2 rw\n"
        "40 31 0:37 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    )
    assert cgroups.mount_points(text, "cgroup2") == ["/sys/fs/a b"]
    assert cgroups.mount_points(text, "tracefs") == []


@pytest.mark.parametrize(
    ("top", "path"),
    [("/", None), ("/", "/"), ("/", "/no/such/group"), ("/..", "/.."), ("/../..", "/twice"), ("/a", "/a")],
)
def test_a_cgroup_whose_directory_cannot_be_told_is_the_whole_mount(
    tmp_path: Path, top: str, path: str | None
) -> None:
    """If it is the top itself, gone, or one of two directories, the whole mount is given, marked so."""
    for name in ("a", "b"):
        (tmp_path / name / name / "twice").mkdir(parents=True)
    mount = cgroups.CgroupMount(tmp_path, top)
    assert cgroups.cgroup2_directory(mount, path) == cgroups.CgroupDirectory(tmp_path, is_root=True)


@pytest.mark.parametrize(
    ("top", "path", "expected"),
    [
        ("/", "/kube/pod1/[1]", "kube/pod1/[1]"),
        ("/..", "/../kube", "kube"),
        ("/../../..", "/../../../kube/pod1/[1]", "kube/pod1/[1]"),
        ("/../../..", "/../[1]", "kube/pod1/[1]"),
        ("/../../..", "/../../pod2/2", "kube/pod2/2"),
        ("/kube", "/kube/pod1/[1]", "pod1/[1]"),
        ("/../kube", "/../kube/pod1", "pod1"),
    ],
)
def test_a_cgroup_is_found_from_a_container(tmp_path: Path, top: str, path: str, expected: str) -> None:
    """Named from the agent's own cgroup, beside it, above it or in a part of the tree, it is found."""
    for name in ("kube/pod1/[1]", "kube/pod2/2", "pod1/[1]", "system/ssh"):
        (tmp_path / name).mkdir(parents=True)
    found = cgroups.cgroup2_directory(cgroups.CgroupMount(tmp_path, top), path)
    assert found == cgroups.CgroupDirectory(tmp_path / expected, is_root=False)


@pytest.mark.parametrize(
    ("top", "path"),
    [("/", "/../x"), ("/..", "/../../x"), ("/docker/a", "/docker/b"), ("/../x", "/../y"), ("/../x", "/z")],
)
def test_a_cgroup_outside_of_the_mount_is_none(tmp_path: Path, top: str, path: str) -> None:
    """A container that sees its own cgroups only does not claim to see another's packets."""
    assert cgroups.cgroup2_directory(cgroups.CgroupMount(tmp_path, top), path) is None


@given(st.text(alphabet="/.a*[", max_size=20), st.text(alphabet="/.a*[", max_size=20))
def test_any_two_cgroup_paths_lead_into_the_mount_or_nowhere(top: str, path: str) -> None:
    """Whatever the kernel says, the directory is in the mount."""
    mount = cgroups.CgroupMount(Path("/proc/self/task"), top)
    found = cgroups.cgroup2_directory(mount, path)
    assert found is None or found.path.is_relative_to(mount.place)
