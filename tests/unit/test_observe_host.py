"""What is found out about a host, and what the doctor makes of it."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import os
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.commands import doctor
from ebpfdns.commands.host_checks import Check, host_checks, libc_check
from ebpfdns.commands.tracepoint_checks import EXPECTED, SYSCALLS, TRACEPOINTS, tracepoint_checks
from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe import host, tracepoints
from ebpfdns.observe.host import CAPABILITIES, Bcc, Host, decode_capabilities, read_host
from ebpfdns.observe.libraries import Library

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.tracepoints import Layout

GOOD = Host(
    kernel_release="6.1.0-13-cloud-amd64",
    kernel=(6, 1),
    machine="x86_64",
    has_btf=True,
    lockdown="integrity",
    tracefs="/sys/kernel/tracing",
    can_mount_tracefs=True,
    has_uprobes=True,
    capabilities=frozenset(CAPABILITIES),
    in_user_namespace=False,
    bcc=Bcc("/usr/lib/python3/dist-packages/bcc", "0.26.0", is_tracer=True),
    pidns_device=4,
    pidns_inode=host.INITIAL_PIDNS_INODE,
    cgroupns_inode=host.INITIAL_CGROUPNS_INODE,
    cgroup2="/sys/fs/cgroup",
)
FORMAT = (
    "name: inet_sock_set_state\nID: 2287\nformat:\n"
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n"
    "\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n"
    "\tfield:__u8 saddr_v6[16];\toffset:40;\tsize:16;\tsigned:0;\n"
    '\tfield:__data_loc char[] comm;\toffset:56;\tsize:4;\tsigned:0;\n\nprint fmt: "field:x;"\n'
)


def of(name: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == name)


def test_a_good_host_is_good() -> None:
    """With everything in place no check complains, and none offers a remedy."""
    assert {(check.status, check.remedy) for check in host_checks(GOOD)} == {("ok", None)}


@pytest.mark.parametrize(
    ("name", "changes", "status"),
    [
        ("kernel", {"kernel": (5, 4), "kernel_release": "5.4.0"}, "missing"),
        ("kernel", {"kernel": (5, 10)}, "ok"),
        ("ring buffer", {"kernel": (5, 7)}, "missing"),
        ("BTF", {"has_btf": False}, "ok"),
        ("lockdown", {"lockdown": "confidentiality"}, "missing"),
        ("lockdown", {"lockdown": None}, "ok"),
        ("rights to trace", {"capabilities": frozenset()}, "missing"),
        ("rights to trace", {"capabilities": frozenset({"BPF"})}, "missing"),
        ("rights to trace", {"capabilities": frozenset({"BPF", "PERFMON"})}, "degraded"),
        ("rights to trace", {"capabilities": frozenset({"BPF", "PERFMON"}), "kernel": (6, 10)}, "ok"),
        ("rights to trace", {"capabilities": frozenset({"SYS_ADMIN"})}, "ok"),
        ("rights to trace", {"in_user_namespace": True}, "missing"),
        ("CAP_SYS_PTRACE", {"capabilities": frozenset({"SYS_ADMIN"})}, "degraded"),
        ("CAP_DAC_READ_SEARCH", {"capabilities": frozenset({"SYS_ADMIN"})}, "degraded"),
        ("CAP_DAC_READ_SEARCH", {"capabilities": frozenset({"DAC_OVERRIDE"})}, "ok"),
        ("CAP_CHECKPOINT_RESTORE", {"capabilities": frozenset({"SYS_ADMIN"})}, "ok"),
        ("CAP_CHECKPOINT_RESTORE", {"capabilities": frozenset({"BPF"})}, "degraded"),
        ("bcc", {"bcc": None}, "missing"),
        ("bcc", {"bcc": Bcc("/x/bcc", "0.1.10", is_tracer=False)}, "missing"),
        ("uprobes", {"has_uprobes": False}, "missing"),
        ("tracefs", {"tracefs": None}, "degraded"),
        ("tracefs", {"tracefs": None, "can_mount_tracefs": False}, "missing"),
        ("cgroup v2", {"cgroup2": None}, "degraded"),
        ("cgroup v2", {"capabilities": frozenset({"BPF", "PERFMON"})}, "degraded"),
        ("cgroup v2", {"cgroupns_inode": 1}, "degraded"),
        ("cgroup v2", {"cgroupns_inode": 1, "cgroup2_top": "/"}, "degraded"),
        ("cgroup v2", {"cgroupns_inode": 1, "cgroup2_top": "/../.."}, "ok"),
        ("pid namespace", {"pidns_inode": 1}, "ok"),
        ("pid namespace", {"pidns_inode": None}, "ok"),
        ("pid namespace", {"is_proc_ours": False}, "missing"),
    ],
)
def test_what_a_host_lacks_is_judged_and_remedied(name: str, changes: dict[str, Any], status: str) -> None:
    """Each lack has its gravity, and whatever is not ok comes with a remedy."""
    check = of(name, host_checks(dataclasses.replace(GOOD, **changes)))
    assert check.status == status
    assert (check.remedy is not None) == (status != "ok")


def test_lookup_functions_are_counted() -> None:
    """A libc with functions is told with kind and version; none at all is a degradation, not the end."""
    library = Library("glibc", "2.36", "/x", 1, 2, {"getaddrinfo": 3}, None)
    assert libc_check([library]) == Check("lookup functions", "ok", "glibc 2.36: 1 found")
    assert libc_check([]).status == "degraded"


def complete(name: str) -> Layout | None:
    """A kernel that has everything."""
    return EXPECTED.get(name, {})


def test_a_kernel_with_every_tracepoint_is_good() -> None:
    """One check for each system call and each other tracepoint, all fine."""
    checks = tracepoint_checks("x86_64", complete)
    assert [check.status for check in checks] == ["ok"] * (len(SYSCALLS) + len(TRACEPOINTS))


@pytest.mark.parametrize(
    "lacking", ["syscalls/sys_exit_poll", "sock/inet_sk_error_report", "task/task_newtask"]
)
def test_a_tracepoint_that_is_lacking_says_what_is_lost(lacking: str) -> None:
    """Only the check of that tracepoint complains, and it names the loss."""
    checks = tracepoint_checks("x86_64", lambda name: None if name == lacking else complete(name))
    (bad,) = [check for check in checks if check.status != "ok"]
    assert bad.status == "degraded"
    assert bad.detail.endswith(("not told", "not followed (--children)", "not reported"))


def test_a_record_that_looks_otherwise_is_noticed() -> None:
    """Where a kernel moved a field the probes read, the check names the field and the place."""
    moved = {**EXPECTED["sock/inet_sock_set_state"], "dport": (28, 2)}
    checks = tracepoint_checks("x86_64", lambda name: moved if name == "sock/inet_sock_set_state" else {})
    check = of("tracepoint sock/inet_sock_set_state", checks)
    assert check.status == "degraded"
    assert "dport at (28, 2)" in check.detail


def test_arm64_does_not_miss_calls_it_never_had() -> None:
    """There is no epoll_wait, poll or select on arm64, and that is no degradation."""
    never = ("_epoll_wait", "_poll", "_select")
    checks = tracepoint_checks("aarch64", lambda name: None if name.endswith(never) else complete(name))
    assert {check.status for check in checks} == {"ok"}


def self_test(monkeypatch: pytest.MonkeyPatch, body: Callable[[], object]) -> list[Check]:
    """What the doctor makes of a module that loads and attaches for real."""
    module = types.ModuleType(doctor.SELF_TEST_MODULE)
    module.__spec__ = importlib.machinery.ModuleSpec(doctor.SELF_TEST_MODULE, None)
    vars(module)["self_test"] = body
    monkeypatch.setitem(sys.modules, doctor.SELF_TEST_MODULE, module)
    return doctor._self_test()


def test_what_really_loads_and_attaches_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the self-test are lines of the doctor's."""
    rows = [("load", "ok", "7 programs"), ("uprobe", "missing", "refused")]
    found = self_test(monkeypatch, lambda: rows)
    assert [(check.name, check.status, check.detail) for check in found] == rows


@pytest.mark.parametrize(
    "error", [HostCannotTraceError("no", remedy="do this"), OSError("libbcc.so.0: cannot open")]
)
def test_a_self_test_that_fails_is_a_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An error in the self-test does not end the doctor: it is what the doctor came to find out."""

    def fail() -> object:
        raise error

    (found,) = self_test(monkeypatch, fail)
    assert found.status == "missing"
    assert str(error) in found.detail
    assert found.remedy


def test_the_layout_of_a_record_is_read() -> None:
    """Fields with their places, arrays among them, and not those every tracepoint has."""
    assert tracepoints.parse_format(FORMAT) == {"skaddr": (8, 8), "saddr_v6": (40, 16), "comm": (56, 4)}


@given(st.text())
def test_any_format_text_is_read_without_failure(text: str) -> None:
    """No text makes the parser fail."""
    assert all(offset >= 0 for offset, _ in tracepoints.parse_format(text).values())


def test_a_kernel_without_the_tracepoint_has_no_layout(tmp_path: Path) -> None:
    """What is not in tracefs is not in this kernel."""
    assert tracepoints.tracepoint_layout(str(tmp_path), "sock/none") is None
    (tmp_path / "events/sock/one").mkdir(parents=True)
    (tmp_path / "events/sock/one/format").write_text(FORMAT, encoding="utf-8")
    assert tracepoints.tracepoint_layout(str(tmp_path), "sock/one") == tracepoints.parse_format(FORMAT)


@pytest.mark.parametrize(
    ("release", "version"),
    [("6.18.44-fc-v595", (6, 18)), ("5.10", (5, 10)), ("6.1.0-13-cloud-amd64", (6, 1)), ("unknown", (0, 0))],
)
def test_a_kernel_release_is_understood(release: str, version: tuple[int, int]) -> None:
    """The first two numbers count, whatever a distribution adds."""
    assert host.kernel_version(release) == version


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("none [integrity] confidentiality\n", "integrity"),
        ("[none] integrity confidentiality", "none"),
        ("", None),
    ],
)
def test_the_chosen_lockdown_is_in_brackets(text: str, word: str | None) -> None:
    """Of the three words one is marked; no file means that it cannot be told."""
    assert host.parse_lockdown(text) == word


@given(st.integers(0, 2**64 - 1))
def test_a_capability_mask_is_its_names(mask: int) -> None:
    """Each bit that has a name is told by it, and no other."""
    names = decode_capabilities(f"{mask:016x}")
    known = mask & ((1 << len(CAPABILITIES)) - 1)
    assert sum(1 << CAPABILITIES.index(name) for name in names) == known


def test_the_numbers_of_capabilities_are_the_kernels() -> None:
    """Some that matter, by the numbers in the kernel's own header."""
    numbers = {
        "DAC_READ_SEARCH": 2,
        "NET_ADMIN": 12,
        "SYS_PTRACE": 19,
        "SYS_ADMIN": 21,
        "PERFMON": 38,
        "BPF": 39,
    }
    assert {name: CAPABILITIES.index(name) for name in numbers} == numbers
    assert CAPABILITIES.index("CHECKPOINT_RESTORE") == 40


def test_this_host_is_what_it_is() -> None:
    """What can be compared with another source agrees with it."""
    found = read_host()
    assert found.kernel_release == os.uname().release
    assert found.pidns_inode == Path("/proc/self/ns/pid").stat().st_ino
    assert found.is_proc_ours
    assert found.in_initial_pidns == (found.pidns_inode == host.INITIAL_PIDNS_INODE)
    assert found.tracefs is None or Path(found.tracefs).is_mount() or found.tracefs.endswith("/tracing")


def test_bcc_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right package is told from another of that name, and neither is run."""
    package = tmp_path / "bcc"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bcc", raising=False)
    assert host.find_bcc() == Bcc(str(package), None, is_tracer=False)
    (package / "libbcc.py").touch()
    (package / "version.py").write_text("__version__ = '0.29.1'\n", encoding="utf-8")
    assert host.find_bcc() == Bcc(str(package), "0.29.1", is_tracer=True)
