"""What cannot be traced is refused: a message, a remedy, the promised exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, environment, of
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

DEADLINE_S = 60
USAGE, NOT_HERE, NO_TARGET = 2, 3, 4
NOBODY = 65534
#: sizes that nothing else asks for: these programs are in no cache, and never will be
UNCACHED = ("--max-calls", "1013")

#: forks a child with a given pid, which becomes the command behind it
FORK_AS = """
import ctypes, os, struct, sys
wanted = (ctypes.c_int * 1)(int(sys.argv[1]))
fields = struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
clone3, libc = 435, ctypes.CDLL(None, use_errno=True)
child = libc.syscall(clone3, ctypes.create_string_buffer(fields, 88), 88)
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child > 0 else os.strerror(ctypes.get_errno()))
"""


def run(*words: object, more_path: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """`ebpfdns` with these words, to its end; no traceback whatever it was asked."""
    settings = environment()
    if more_path is not None:
        settings["PYTHONPATH"] = f"{more_path}{os.pathsep}{settings['PYTHONPATH']}"
    argv = [sys.executable, "-P", "-m", "ebpfdns", *map(str, words)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, env=settings, **options) as process:
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    done = subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is killed."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        yield process
        process.kill()


# No such target.


def test_a_pid_that_is_gone_is_no_target() -> None:
    """Exit code 4, and a message with the pid and a remedy."""
    process = subprocess.Popen(["true"])
    process.wait()
    done = run("attach", "--pid", process.pid)
    assert done.returncode == NO_TARGET
    assert str(process.pid) in done.stderr
    assert "try:" in done.stderr
    assert done.stdout == ""


def test_one_pid_of_two_that_is_gone_is_no_target(sleeper: subprocess.Popen[bytes]) -> None:
    """A wrong pid beside a right one ends it before anything is attached or written."""
    process = subprocess.Popen(["true"])
    process.wait()
    done = run("attach", "--pid", sleeper.pid, "--pid", process.pid)
    assert (done.returncode, done.stdout) == (NO_TARGET, "")
    assert str(process.pid) in done.stderr


def test_a_thread_is_no_target_and_its_process_is_named() -> None:
    """The id of a thread: exit code 4, and the pid of its process as the remedy."""
    blocked = threading.Event()
    thread = threading.Thread(target=blocked.wait)
    thread.start()  # returns once it runs and has its id
    try:
        done = run("attach", "--pid", thread.native_id)
    finally:
        blocked.set()
        thread.join()
    assert done.returncode == NO_TARGET
    assert f"--pid {os.getpid()}" in done.stderr


def test_a_zombie_is_no_target() -> None:
    """A process that has ended and was not collected: exit code 4, and the message says so."""
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    try:
        done = run("attach", "--pid", process.pid)
    finally:
        process.wait()
    assert done.returncode == NO_TARGET
    assert str(process.pid) in done.stderr
    assert "zombie" in done.stderr


def test_a_kernel_thread_is_no_target() -> None:
    """A thread of the kernel: exit code 4, and the message says so."""
    stat = Path("/proc/2/stat")
    if not stat.exists() or "(kthreadd)" not in stat.read_text():
        pytest.skip("no kernel threads are seen from here")
    done = run("attach", "--pid", 2)
    assert done.returncode == NO_TARGET
    assert "kernel thread" in done.stderr


def test_the_processes_of_another_pid_namespace_are_not_taken_for_ours(tmp_path: Path) -> None:
    """With /proc of another namespace nobody is who the numbers say: exit code 3, and nothing is run."""
    ran = tmp_path / "ran"
    command = [sys.executable, "-P", "-m", "ebpfdns", "run", "--", "touch", ran]
    done = subprocess.run(
        ["unshare", "--pid", "--fork", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == NOT_HERE
    assert "another pid namespace" in done.stderr
    assert "mount -t proc" in done.stderr
    assert not ran.exists()


def test_a_target_that_ends_while_it_is_attached_is_an_end_or_no_target() -> None:
    """Whenever a process dies during the start, the agent ends with 0 or 4 and no traceback."""
    for delay in ("0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"):
        with subprocess.Popen(["sleep", delay]) as process:
            done = run("attach", "--pid", process.pid, "--duration", "20s")
        assert done.returncode in {0, NO_TARGET}, (delay, done.stderr)
        if done.returncode == 0:
            assert '"exited"' in done.stdout, delay


def test_a_pid_used_again_is_another_process(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """After a target has ended, a new process with its very pid is not traced; the other target still is."""
    binary = of_this_machine(programs, "lookup-musl")
    argv = [binary, "--name", "www.lab.test", "--threads", 0]
    with FAULTS["healthy"].setup(sandbox, log=False):
        first, second = Program(sandbox, argv), Program(sandbox, argv)
        with Agent("attach", "--pid", first.pid, "--pid", second.pid, "--all") as agent:
            first.go()
            assert first.result()["ok"] == 1
            agent.wait_for(lambda line: line["event"] == "target" and line["target"]["status"] == "exited")
            again = [binary, "--name", "again.lab.test", "--threads", "0", "--count", "7"]
            done = sandbox.popen([sys.executable, "-I", "-c", FORK_AS, str(first.pid), *map(str, again)])
            assert done.wait(DEADLINE_S) == 0
            second.go()
            assert second.result()["ok"] == 1
            lines = agent.finish()
    assert [line["lookup"]["name"] for line in of(lines, "lookup")] == ["www.lab.test"] * 2
    assert lines[-1]["stats"]["lookups"]["started"] == 2


# Not here.


@pytest.mark.usefixtures("nobody_can_run_us")
def test_without_rights_the_remedy_is_named(sleeper: subprocess.Popen[bytes]) -> None:
    """As nobody: exit code 3, and which rights are missing."""
    done = run("attach", "--pid", sleeper.pid, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    assert done.returncode == NOT_HERE, done.stderr
    assert "try:" in done.stderr
    assert "root" in done.stderr
    assert done.stdout == ""


def test_what_may_not_be_read_is_missing(sleeper: subprocess.Popen[bytes]) -> None:
    """Without CAP_SYS_PTRACE the coverage says that reading the process was refused, and what it takes."""
    without = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]
    words = ["attach", "--pid", str(sleeper.pid), "--duration", "1ms"]
    argv = [*without, sys.executable, "-P", "-m", "ebpfdns", *words]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=True)
    missing = json.loads(done.stdout.splitlines()[0])["target"]["coverage"]["missing"]
    assert [text for text in missing if "refused" in text and "CAP_SYS_PTRACE" in text]


@pytest.mark.parametrize(
    ("text", "word"),
    [("raise ImportError('no module named bcc')", "missing"), ("version = '0.1.10'", "not the BPF compiler")],
    ids=("missing", "another_package"),
)
def test_without_bcc_the_package_is_named(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, text: str, word: str
) -> None:
    """No bcc, or another package of that name, and nothing cached: exit code 3, and what to install."""
    (tmp_path / "bcc.py").write_text(text)
    done = run("attach", "--pid", sleeper.pid, *UNCACHED, more_path=tmp_path)
    assert done.returncode == NOT_HERE, done.stderr
    assert word in done.stderr
    assert "apt-get install python3-bpfcc" in done.stderr


# Usage.


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--pid", "0"),
        ("--pid", "-1"),
        ("--pid", "x"),
        ("--pid", "1", "--stuck-after", "1"),
        ("--pid", "1", "--stuck-after", "soon"),
        ("--pid", "1", "--no-such-option"),
        ("--pid", "1", "--format", "xml"),
        ("--pid", "1", "--dns-port", "65536"),
        ("--pid", "1", "--log-level", "loud"),
        ("--pid", "1", "--record", "r", "--redact-names"),
        ("1",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_is_a_usage_error(words: tuple[str, ...]) -> None:
    """Exit code 2, the reason on stderr, nothing on stdout."""
    done = run("attach", *words)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.strip()


def test_an_output_that_cannot_be_opened_is_an_error(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """A folder that is not there: exit code 1, with the path in the message."""
    missing = tmp_path / "missing" / "lines.jsonl"
    done = run("attach", "--pid", sleeper.pid, "--output", missing)
    assert done.returncode == 1, done.stderr
    assert str(missing) in done.stderr
