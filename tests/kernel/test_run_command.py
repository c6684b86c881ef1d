"""`ebpfdns run`: the command is as if nobody were there, and its lookups are told from the first one on."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from xml.etree import ElementTree as ET

import pytest
from agent import environment
from play import again, whole
from program import of_this_machine
from runs import DEADLINE_S, run, start

from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

SHORT = "timeout:1 attempts:1"
SOON = ("--stuck-after", "300ms")
#: Says that it is there, and then how it was told to end.
WAITS = "trap 'echo {0}; exit 41' {0}; echo ready; while :; do sleep 0.02; done"


@again
@pytest.mark.parametrize("flavour", ["glibc", "musl", "musl-static"])
def test_the_first_lookup_of_all_is_told_by_its_call(
    sandbox: Sandbox, programs: dict[str, Path], flavour: str
) -> None:
    """A program whose very first act is a lookup is told of by that call, name and program, and counted."""
    binary = of_this_machine(programs, f"lookup-{flavour}")
    with FAULTS["healthy"].setup(sandbox, log=False):
        ran = run(sandbox, "--all", command=[binary, "--name", "first.lab.test", "--threads", 0])
    assert ran.code == 0
    whole(ran.lines)
    (told,) = ran.of("lookup")
    assert (told["lookup"]["name"], told["lookup"]["api"]) == ("first.lab.test", "getaddrinfo")
    assert told["process"]["executable"]["name"] == f"lookup-{flavour}"
    assert ran.lookups["started"] == ran.lookups["ok"] == 1
    attached = [line for line in ran.of("target") if line["target"]["status"] == "attached"]
    assert [line["process"]["executable"]["path"] for line in attached] == [str(binary)]
    assert "1 lookup, 1 ok, none got stuck" in ran.stderr


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_commands_code_is_ours(sandbox: Sandbox, script: str, code: int) -> None:
    """What the command ended with is what `run` ends with: 128+N for a signal, as a shell says it."""
    assert run(sandbox, command=["sh", "-c", script]).code == code


def test_streams_are_the_commands_own(sandbox: Sandbox) -> None:
    """Standard input goes to the command and its standard output comes out, byte for byte, any bytes."""
    sent = bytes(range(256)) * 257
    process = start(sandbox, ["--", "cat"], stdin=subprocess.PIPE)
    stdout, _ = process.communicate(sent, timeout=DEADLINE_S)
    assert (process.returncode, stdout) == (0, sent)


def test_closed_streams_are_closed_for_the_command(sandbox: Sandbox) -> None:
    """Nothing of ours takes their place, and the exit code is the command's."""
    script = "for n in 0 1 2; do test ! -e /proc/$$/fd/$n || exit $n; done; exit 43"
    words = [
        "-c",
        'exec "$@" <&- >&- 2>&-',
        "sh",
        sys.executable,
        "-P",
        "-m",
        "ebpfdns",
        "run",
        "--no-summary",
    ]
    process = sandbox.popen(
        ["sh", *words, "--output", "/dev/null", "--", "sh", "-c", script], env=environment()
    )
    assert process.wait(DEADLINE_S) == 43


def test_the_environment_is_the_commands_own(sandbox: Sandbox) -> None:
    """The command has the very variables that `run` was given, ignored signals and limits like without it."""
    show = "env -0 | sort -z; grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; ulimit -n; ulimit -l; pwd; umask"
    given = {"PATH": os.environ["PATH"], "LC_ALL": "C", "ODD": "a=b\n\x01\udcff"}
    given |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    given["PYTHONPATH"] = str(Path(__file__).parents[2] / "agent")
    plain = subprocess.run(["sh", "-c", show], env=given, capture_output=True, check=True)
    ran = run(sandbox, command=["sh", "-c", show], env=given)
    assert (ran.code, ran.stdout) == (0, plain.stdout)


@again
def test_a_stuck_lookup_is_told_at_the_end_with_what_helps(
    sandbox: Sandbox, programs: dict[str, Path], tmp_path: Path
) -> None:
    """--fail-on-stuck ends with 5; summary and JUnit name the lookup, its cause and the remedy."""
    binary, junit = of_this_machine(programs, "lookup-glibc"), tmp_path / "dns.xml"
    words = (*SOON, "--fail-on-stuck", "--junit", junit)
    with FAULTS["silent"].setup(sandbox, options=SHORT, log=False):
        ran = run(sandbox, *words, command=["sh", "-c", f"{binary} --name www.lab.test; echo $?"])
    assert ran.code == 5
    whole(ran.lines)
    assert ran.of("lookup_stuck")[0]["cause"]["id"] == "ns_silent"
    for wanted in ("1 got stuck", "ns_silent", "192.0.2.53", "dig +time=2", "lookup-glibc", "EAI_AGAIN"):
        assert wanted in ran.stderr, ran.stderr
    (suite,) = ET.parse(junit).getroot()  # noqa: S314 - our own file
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    (case,) = suite.findall("testcase")
    assert (case.get("classname"), case.get("name")) == ("ebpfdns.lookup-glibc", "lookup of www.lab.test")
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("type") == "ns_silent"
    assert "dig +time=2" in (failure.text or "")


def test_without_that_option_a_stuck_lookup_changes_no_code(
    sandbox: Sandbox, programs: dict[str, Path]
) -> None:
    """A lookup that got stuck alone is no failure; by default its lines stand on stderr, others do not."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["silent"].setup(sandbox, options=SHORT, log=False):
        command = ["sh", "-c", f"{binary} --name www.lab.test >/dev/null; exit 3"]
        process = start(sandbox, [*SOON, "--", *command])
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stdout) == (3, b"")
    assert b'"event":"lookup_stuck"' in stderr
    assert b'"event":"target"' not in stderr
    assert stderr.rstrip().splitlines()[-1].split()[0] != b"{"


def test_a_healthy_run_is_one_passed_case(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without a stuck lookup the JUnit file has one case, passed, and --fail-on-stuck changes nothing."""
    junit = tmp_path / "dns.xml"
    ran = run(sandbox, "--fail-on-stuck", "--junit", junit, "--no-summary", command=["true"])
    assert (ran.code, ran.stderr) == (0, "")
    (suite,) = ET.parse(junit).getroot()  # noqa: S314 - our own file
    assert [(case.get("name"), len(case)) for case in suite.findall("testcase")] == [
        ("no lookup got stuck", 0)
    ]


@pytest.mark.parametrize("harm", ["mkdir", "ln -s /dev/full"])
def test_a_report_that_cannot_be_written_at_the_end_takes_no_exit_code(
    sandbox: Sandbox, tmp_path: Path, harm: str
) -> None:
    """The disk is full by then, or a folder is in its place: the command's own code, and a word of it."""
    junit = tmp_path / "dns.xml"
    command = ["sh", "-c", f"rm {junit}; {harm} {junit}; exit 7"]
    ran = run(sandbox, "--junit", junit, "--no-summary", command=command)
    assert ran.code == 7
    assert "the JUnit file was not written" in ran.stderr
    assert str(junit) in ran.stderr


def test_lines_that_find_no_room_take_no_exit_code(sandbox: Sandbox) -> None:
    """The command's own code, and how many lines are missing, and why."""
    ran = run(sandbox, "--output", "/dev/full", "--no-summary", command=["sh", "-c", "exit 7"])
    assert ran.code == 7
    assert "lines were not written" in ran.stderr
    assert "ENOSPC" in ran.stderr


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "USR1"])
def test_a_signal_to_us_is_the_commands(sandbox: Sandbox, name: str) -> None:
    """What somebody sends to `run` reaches the command, which decides; its own code comes back."""
    process = start(sandbox, ["--no-summary", "--", "sh", "-c", WAITS.format(name)])
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stdout, stderr) == (41, f"{name}\n".encode(), b"")


def test_killed_before_it_ran(sandbox: Sandbox) -> None:
    """A signal that comes while the probes are made ends the command before its first instruction."""
    process = start(sandbox, ["--", "sh", "-c", "echo ran; sleep 60"])
    wait_until(lambda: signal.SIGTERM in blocked(process.pid))
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143
    assert stdout in (b"", b"ran\n")


def test_ctrl_c_at_once(sandbox: Sandbox) -> None:
    """The whole group is interrupted while probes are made: the command never runs, 130 is the code."""
    process = start(sandbox, ["--", "sh", "-c", "echo ran; sleep 60"], start_new_session=True)
    wait_until(lambda: signal.SIGINT in blocked(process.pid) and bool(processes.children(process.pid)))
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, stdout) == (130, b"")


def test_a_daemon_that_outlives_the_command_is_let_go(sandbox: Sandbox) -> None:
    """The run ends with its command; what goes on is said, is no longer traced, and lives."""
    ran = run(sandbox, command=["sh", "-c", "sleep 613 >/dev/null 2>&1 & echo $!"])
    left = int(ran.stdout)
    try:
        assert ran.code == 0
        assert "1 process that it started goes on" in ran.stderr
        assert ran.of("target")[-1]["target"]["status"] == "detached"
        assert Path(f"/proc/{left}").exists()
    finally:
        os.kill(left, signal.SIGKILL)


def test_another_user(sandbox: Sandbox, nobody_can_run_us: None) -> None:  # noqa: ARG001 - a skip
    """--user: ids, groups and HOME are that user's; a setuid program still becomes its owner."""
    script = "id -un; id -G; echo $HOME $USER; grep -c . /proc/self/environ >/dev/null; exec passwd -S nobody"
    ran = run(sandbox, "--user", "nobody", command=["sh", "-c", script])
    lines = ran.stdout.decode().splitlines()
    assert lines[:3] == ["nobody", "65534", "/nonexistent nobody"]
    assert ran.code == 0  # passwd -S reads /etc/shadow: it is setuid root
    assert lines[3].startswith("nobody ")


def test_a_command_that_becomes_another_program(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """An exec in the command itself is followed: its lookups are told under the new program's name."""
    binary = of_this_machine(programs, "lookup-glibc")
    with FAULTS["healthy"].setup(sandbox, log=False):
        ran = run(sandbox, "--all", command=["sh", "-c", f"exec {binary} --name www.lab.test"])
    (told,) = ran.of("lookup")
    assert told["process"]["executable"]["name"] == "lookup-glibc"
    assert ran.code == 0


def test_tracing_that_ends_early_leaves_the_command_alone(sandbox: Sandbox) -> None:
    """After --duration nothing is traced any more; the command goes on to its own end and code."""
    ran = run(sandbox, "--duration", "50ms", command=["sh", "-c", "sleep 0.5; echo done; exit 9"])
    assert (ran.code, ran.stdout) == (9, b"done\n")
    assert ran.of("target")[-1]["target"]["status"] == "detached"


def test_ctrl_c_reaches_the_command_once(sandbox: Sandbox) -> None:
    """From the terminal SIGINT comes to the command as without `run`: once, and it decides."""
    script = "trap 'n=$((n + 1)); echo int $n' INT; n=0; echo ready; read line; echo $line; exit 6"
    with Screen(sandbox, ["--no-summary", "--", "sh", "-c", script]) as screen:
        screen.wait_for("ready")
        screen.type("\x03")
        screen.wait_for("int 1")
        screen.type("over\n")
        assert screen.finish() == 6
    assert "int 2" not in screen.text


def test_ctrl_z_stops_both_and_fg_goes_on(sandbox: Sandbox) -> None:
    """A shell with job control gets its prompt back after Ctrl-Z, and `fg` lets command and tracing go on."""
    command = [sys.executable, "-P", "-m", "ebpfdns", "run", "--no-summary", "--"]
    inner = " ".join(map(str, command)) + " sh -c 'echo ready; read line; echo got $line; exit 6'"
    with Screen(sandbox, ["bash", "--norc", "--noprofile", "-i"], is_run=False) as screen:
        screen.type(f"{inner}\n")
        screen.wait_for("ready\r\n")
        screen.type("\x1a")
        screen.wait_for("Stopped")
        screen.type("fg\n")
        screen.type("word\n")
        screen.wait_for("got word")
        screen.type("echo code $?\n")
        screen.wait_for("code 6")
        screen.type("exit\n")
        assert screen.finish() == 0


class Screen:
    """A terminal of its own, with a program in its foreground."""

    def __init__(self, sandbox: Sandbox, words: list[object], *, is_run: bool = True) -> None:
        self.text = ""
        self._fd, self._other = pty.openpty()
        attributes = termios.tcgetattr(self._other)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(self._other, termios.TCSANOW, attributes)
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), self._other)
        leader = "import os,sys,fcntl,termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        leader += "os.execvp(sys.argv[1], sys.argv[1:])"
        run_words = [sys.executable, "-P", "-m", "ebpfdns", "run"] if is_run else []

        argv = [sys.executable, "-c", leader, *run_words, *map(str, words)]
        self._process = sandbox.popen(argv, env=environment() | {"TERM": "dumb"}, **streams)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
        os.close(self._other)

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        give_up_at = time.monotonic() + DEADLINE_S
        while text not in self.text:
            left_s = give_up_at - time.monotonic()
            assert left_s > 0, self.text
            if select.select([self._fd], [], [], left_s)[0]:
                self.text += os.read(self._fd, 4096).decode(errors="replace")

    def finish(self) -> int:
        return self._process.wait(DEADLINE_S)


def blocked(pid: int) -> set[int]:
    """Signals that a process has blocked."""
    text = Path(f"/proc/{pid}/status").read_text()
    mask = int(next(line for line in text.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    return {number for number in range(1, 65) if mask >> number - 1 & 1}


def wait_until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < give_up_at
        os.sched_yield()
