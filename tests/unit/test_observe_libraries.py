"""Which libc a process has, told from real processes of every kind this machine can build."""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import libraries
from ebpfdns.observe.libraries import LOOKUP_FUNCTIONS, Library, find_libraries, libc_version
from ebpfdns.observe.processes import read_process

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKLOADS = Path(__file__).parents[1] / "workloads" / "build.py"
BREAKPOINT_BYTES = 16
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="map_files needs CAP_CHECKPOINT_RESTORE")
SOURCE = """
#include <netdb.h>
#include <stdio.h>
int main(void) {
  struct addrinfo *found;
  puts("ready"); fflush(stdout);
  return getchar() == 'x' ? getaddrinfo("a.test", "80", 0, &found) : 0;
}
"""


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    built: dict[str, Path] = runpy.run_path(str(WORKLOADS))["build"]()
    return built


def of(*argv: str | Path, ready: bool = True, environment: dict[str, str] | None = None) -> list[Library]:
    """The libraries of a program that is started, says it is ready, is looked at, and ended."""
    with running(*argv, ready=ready, environment=environment) as pid:
        return find_libraries(read_process(pid))


@contextlib.contextmanager
def running(
    *argv: str | Path, ready: bool = True, environment: dict[str, str] | None = None
) -> Iterator[int]:
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        if ready:
            assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def workload(programs: dict[str, Path], name: str, tmp_path: Path) -> list[Library]:
    """The libraries of a workload program that waits for its go."""
    if name not in programs:
        pytest.skip(f"{name} cannot be built here")
    ready_file = tmp_path / "ready"
    argv = [programs[name], "--name", "a.test", "--ready-file", ready_file, "--go-file", tmp_path / "go"]
    with running(*map(str, argv), ready=False) as pid:
        while not ready_file.exists():
            os.sched_yield()
        return find_libraries(read_process(pid))


def build_static(folder: Path, *flags: str) -> Path:
    """A small program with glibc inside."""
    (folder / "s.c").write_text(SOURCE, encoding="utf-8")
    command = ["gcc", "-w", "-o", "s", "s.c", *flags]
    if shutil.which("gcc") is None or subprocess.run(command, cwd=folder, check=False).returncode != 0:
        pytest.skip("no static glibc here")
    return folder / "s"


def test_this_process_has_the_libc_it_says_it_has() -> None:
    """Kind and version are those that the C library itself gives when asked."""
    libc = ctypes.CDLL(None)
    found = find_libraries(read_process(os.getpid()))[0]
    if not hasattr(libc, "gnu_get_libc_version"):
        pytest.skip("not a glibc system")
    libc.gnu_get_libc_version.restype = ctypes.c_char_p
    assert (found.kind, found.version) == ("glibc", libc.gnu_get_libc_version().decode())
    assert found.missing is None
    assert (found.device, found.inode) == (os.stat(found.path).st_dev, os.stat(found.path).st_ino)  # noqa: PTH116


def test_every_lookup_function_of_glibc_is_found() -> None:
    """A glibc of 2.34 or later has all of them in one file."""
    found = [library for library in find_libraries(read_process(os.getpid())) if library.kind == "glibc"]
    if not found or tuple(map(int, (found[0].version or "0").split("."))) < (2, 34):
        pytest.skip("not a glibc system, or an older one")
    assert found[0].functions.keys() == set(LOOKUP_FUNCTIONS)


def test_offsets_lead_to_the_functions_code() -> None:
    """The bytes behind an offset in the file are those behind the function's address in memory.

    The first ones may be a breakpoint just now: of a tracer that another test has started.
    """
    found = find_libraries(read_process(os.getpid()))[0]
    function = ctypes.CDLL(None).getaddrinfo
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    with open(found.path, "rb") as file:  # noqa: PTH123 - may be a magic link
        file.seek(found.functions["getaddrinfo"] + BREAKPOINT_BYTES)
        assert file.read(64) == ctypes.string_at(address + BREAKPOINT_BYTES, 64)


def test_musl_is_told_with_its_version(programs: dict[str, Path], tmp_path: Path) -> None:
    """A program with musl shows musl, its version, and what musl has (its res_search is res_query)."""
    (found,) = workload(programs, "lookup-musl", tmp_path)
    loader = next(Path("/lib").glob("ld-musl-*.so.1"))
    said = subprocess.run([loader], capture_output=True, text=True, check=False).stderr
    assert found.kind == "musl"
    assert f"Version {found.version}\n" in said
    assert {"getaddrinfo", "gethostbyname", "res_query", "res_send"} <= found.functions.keys()
    assert not {"res_nquery", "res_search"} & found.functions.keys()


def test_static_musl_has_its_functions_inside(programs: dict[str, Path], tmp_path: Path) -> None:
    """A statically linked program is its own libc; its version is not told, and not guessed."""
    (found,) = workload(programs, "lookup-musl-static", tmp_path)
    assert (found.kind, found.version, found.missing) == ("musl", None, None)
    assert "getaddrinfo" in found.functions
    assert found.path.endswith("/exe")


def test_static_musl_without_symbols_says_what_is_missing(programs: dict[str, Path], tmp_path: Path) -> None:
    """Stripped as well, it has no functions to probe, and says why."""
    (found,) = workload(programs, "lookup-musl-stripped", tmp_path)
    assert (found.kind, found.functions) == ("musl", {})
    assert "stripped" in (found.missing or "")


@pytest.mark.parametrize("flags", [("-static",), ("-static-pie",)])
def test_static_glibc_has_its_functions_inside(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """A program with glibc inside shows glibc, at a fixed address or not."""
    (found,) = of(build_static(tmp_path, *flags))
    assert (found.kind, found.missing) == ("glibc", None)
    assert "getaddrinfo" in found.functions


def test_static_glibc_without_symbols_says_what_is_missing(tmp_path: Path) -> None:
    """Stripped as well, it is still known to be glibc, by the note its start-up code leaves."""
    (found,) = of(build_static(tmp_path, "-static", "-s"))
    assert (found.kind, found.functions) == ("glibc", {})
    assert "stripped" in (found.missing or "")


def test_a_program_without_a_libc_has_none(tmp_path: Path) -> None:
    """A static program that uses no libc (as Go's do) is not said to have one."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    (tmp_path / "n.c").write_text('void _start(void) { for (;;) __asm__ volatile("nop"); }', encoding="utf-8")
    subprocess.run(["gcc", "-static", "-nostdlib", "-o", "n", "n.c"], cwd=tmp_path, check=True)
    assert of(tmp_path / "n", ready=False) == []
    subprocess.run(["gcc", "-static", "-nostdlib", "-s", "-o", "n", "n.c"], cwd=tmp_path, check=True)
    assert of(tmp_path / "n", ready=False) == []


@needs_root
@pytest.mark.parametrize("replacement", [None, b"something else"])
def test_a_libc_that_was_upgraded_is_still_found(tmp_path: Path, replacement: bytes | None) -> None:
    """When its file is deleted or replaced under a running process, the mapped one is read all the same."""
    own = find_libraries(read_process(os.getpid()))[0]
    copy = tmp_path / Path(own.path).name
    shutil.copy(own.path, copy)
    code = "print('ready', flush=True); input()"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    with running(sys.executable, "-c", code, environment=environment) as pid:
        copy.unlink()
        if replacement is not None:
            copy.write_bytes(replacement)
        found = find_libraries(read_process(pid))[0]
    assert "/map_files/" in found.path
    assert (found.version, found.functions) == (own.version, own.functions)
    assert found.inode != own.inode


def test_two_processes_with_one_libc_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was read is known by device, inode, time and size."""
    find_libraries(read_process(os.getpid()))
    monkeypatch.setattr(libraries, "_read_library", None)
    assert of(sys.executable, "-c", "print('ready', flush=True); input()")[0].functions


def test_the_memory_of_what_was_read_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many programs only the latest are remembered."""
    monkeypatch.setattr(libraries, "_seen", {})
    for number in range(3 * libraries._MAX_SEEN):
        libraries._remember((0, number, 0, 0), libraries._Contents(None, None, {}, None))
    assert len(libraries._seen) == libraries._MAX_SEEN
    assert (0, 3 * libraries._MAX_SEEN - 1, 0, 0) in libraries._seen


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (
            b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\nCopy",
            ("glibc", "2.36"),
        ),
        (b"\0GNU C Library (GNU libc) development release version 2.41.9000.\n", ("glibc", "2.41.9000")),
        (b"musl libc (aarch64)\nVersion %s\n\0\0001.2.5\0", ("musl", "1.2.5")),
        (b"musl libc (x86_64)\n\0127.0.0.1\0001.2.5-git-12-gabcdef\0", ("musl", "1.2.5-git-12-gabcdef")),
        (b"musl libc (x86_64)\n\0001.2.5\0001.1.24\0", ("musl", None)),
        (b"\0001.2.5\0", (None, None)),
        (b"", (None, None)),
    ],
)
def test_a_version_is_told_only_beyond_doubt(
    contents: bytes, expected: tuple[str | None, str | None]
) -> None:
    """The banner tells glibc's version; musl's is the only text that looks like one, else it is not known."""
    assert libc_version(contents) == expected


@given(st.binary())
def test_any_bytes_have_a_version_or_none(contents: bytes) -> None:
    """No bytes make the search for a version fail."""
    kind, version = libc_version(contents)
    assert kind is not None or version is None
