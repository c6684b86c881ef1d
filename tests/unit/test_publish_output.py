"""The output against real files and pipes: slow, gone, full, moved."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ebpfdns.errors import EbpfdnsError
from ebpfdns.publish.destination import Destination
from ebpfdns.publish.line_output import NullOutput
from ebpfdns.publish.output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

FLUSH_S = 20.0
LIMIT_BYTES = 256 * 1024


def numbered(numbers: range, size_bytes: int = 200) -> list[bytes]:
    """Lines that say which they are and how long they should be."""
    return [b'{"n":%d,"pad":"%s"}\n' % (n, b"x" * (size_bytes - 20 - len(str(n)) % 7)) for n in numbers]


def whole_lines(data: bytes) -> list[int]:
    """The numbers of the lines; fails on a line that is cut or glued."""
    assert not data or data.endswith(b"\n")
    return [json.loads(line)["n"] for line in data.splitlines()]


class Pipe:
    """A pipe with our output at one end."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.read_fd, write_fd = os.pipe()
        own_fd = os.open(f"/proc/self/fd/{write_fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.close(write_fd)
        self.output = Output(Destination(own_fd, never_blocks=True), limit_bytes=limit_bytes)

    def read_all(self) -> bytes:
        """All there is until the other end is closed."""
        with os.fdopen(self.read_fd, "rb") as reader:
            return reader.read()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.output.close()


def fill(output: Output) -> int:
    """Write until a line is refused; how many were offered."""
    numbers = itertools.count()
    while not output._backlog.refusing:
        number = next(numbers)
        output.write_lines(numbered(range(number, number + 1)))
    return next(numbers)


def test_a_file_has_the_lines_and_is_private(tmp_path: Path) -> None:
    """Lines are appended to what is there; a new file is not for everybody's eyes."""
    path = tmp_path / "events.jsonl"
    for part in (range(3), range(3, 1000)):
        output = Output.open(str(path))
        output.write_lines(numbered(part))
        assert output.flush(FLUSH_S) == 0
        output.close()
    assert whole_lines(path.read_bytes()) == list(range(1000))
    assert path.stat().st_mode & 0o137 == 0


def test_a_line_left_unfinished_by_another_is_not_glued_to(tmp_path: Path) -> None:
    """Behind a killed writer's half line the first of ours starts on a line of its own."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"n":0}\n{"half')
    output = Output.open(str(path))
    output.write_lines(numbered(range(2)))
    output.flush(FLUSH_S)
    output.close()
    assert whole_lines(path.read_bytes().partition(b'{"half\n')[2]) == [0, 1]


def test_a_reader_that_does_not_read_holds_up_nobody(pipe: Pipe) -> None:
    """With a full pipe, writing goes on at once; memory is bounded; drops are counted and told later."""
    offered = fill(pipe.output)
    offered_more = 50_000
    pipe.output.write_lines(numbered(range(offered, offered + offered_more)))
    assert pipe.output._backlog._used_bytes <= LIMIT_BYTES
    assert pipe.output.take_dropped() == 0, "no room yet for a line about it"
    assert pipe.output.flush(0.0) > 0
    received = threading.Thread(target=lambda: results.append(pipe.read_all()))
    results: list[bytes] = []
    received.start()
    assert pipe.output.flush(FLUSH_S) == 0
    dropped = pipe.output.take_dropped()
    pipe.output.close()
    received.join()
    numbers = whole_lines(results[0])
    assert numbers == list(range(len(numbers))), "the oldest are kept, in order"
    assert len(numbers) + dropped == offered + offered_more


def test_lines_of_any_length_arrive_whole(pipe: Pipe) -> None:
    """Lines shorter and longer than a pipe takes at once come out as they went in."""
    sizes = [40, 300, 5000, 40, 70_000, 4096, 4095, 150_000, 41]
    lines = [numbered(range(n, n + 1), size)[0] for n, size in enumerate(sizes)]
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append(pipe.read_all()))
    reader.start()
    for line in lines:
        pipe.output.write_lines([line])
        pipe.output.flush(FLUSH_S)
    pipe.output.close()
    reader.join()
    assert results[0] == b"".join(lines)


def test_no_line_is_cut_or_lost_silently_under_load() -> None:
    """As fast as it goes, against a reader that cannot keep up: each line arrives whole, or is counted."""
    pipe, offered, results = Pipe(), 60_000, list[bytes]()
    reader = threading.Thread(target=lambda: results.append(pipe.read_all()))
    reader.start()
    batches = [numbered(range(first, first + 100), 700) for first in range(0, offered, 100)]
    for batch in batches:
        pipe.output.write_lines(batch)
    assert pipe.output.flush(FLUSH_S) == 0
    dropped = pipe.output.take_dropped()
    pipe.output.close()
    reader.join()
    numbers = whole_lines(results[0])
    assert numbers == sorted(set(numbers))
    assert len(numbers) + dropped == offered


def test_what_is_in_a_full_pipe_are_whole_lines(pipe: Pipe) -> None:
    """An agent that leaves while its reader stands still has not left half a line in the pipe."""
    fill(pipe.output)
    pipe.output.close()
    numbers = whole_lines(pipe.read_all())
    assert numbers == list(range(len(numbers)))


def test_a_closed_pipe_is_noticed_without_a_line(pipe: Pipe) -> None:
    """The reader's going ends the output at once, not with the next event, which may be hours away."""
    os.close(pipe.read_fd)
    with pipe.output._state:
        assert pipe.output._state.wait_for(lambda: pipe.output.closed, FLUSH_S)
    pipe.output.write_lines(numbered(range(9)))
    assert (pipe.output.flush(FLUSH_S), pipe.output.take_dropped()) == (0, 0)


def test_a_rotated_file_gets_what_came_before(tmp_path: Path) -> None:
    """Lines before `reopen` are in the moved file, lines after it in the new one, none in neither."""
    path, moved = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    output = Output.open(str(path))
    output.write_lines(numbered(range(5000)))
    path.rename(moved)
    output.reopen()
    output.write_lines(numbered(range(5000, 6000)))
    assert output.flush(FLUSH_S) == 0
    output.close()
    assert whole_lines(moved.read_bytes()) == list(range(5000))
    assert whole_lines(path.read_bytes()) == list(range(5000, 6000))


def test_a_rotation_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    """When the new file cannot be made, the error says so and lines go on into the old one."""
    folder = tmp_path / "log"
    folder.mkdir()
    output = Output.open(str(folder / "events.jsonl"))
    folder.rename(tmp_path / "gone")
    with pytest.raises(EbpfdnsError, match="cannot write to") as caught:
        output.reopen()
    assert caught.value.remedy
    output.write_lines(numbered(range(3)))
    output.flush(FLUSH_S)
    output.close()
    assert whole_lines((tmp_path / "gone" / "events.jsonl").read_bytes()) == [0, 1, 2]


FILE_LIMIT_SCRIPT = """
import resource, sys
from ebpfdns.publish.output import Output
sys.path.insert(0, sys.argv[2])
from test_publish_output import FLUSH_S, LIMIT_BYTES, fill, numbered, whole_lines
from pathlib import Path
path, limit_bytes = Path(sys.argv[1]), 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
output = Output.open(str(path), limit_bytes=LIMIT_BYTES)
offered, dropped = fill(output), 0
assert output.flush(0.5) > 0
assert output.failure == "EFBIG", output.failure
kept = whole_lines(path.read_bytes())  # while it is full: no half line to be seen
assert kept == list(range(len(kept))) and len(kept) > 400, kept
if sys.argv[3] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert output.flush(FLUSH_S) == 0
    dropped = output.take_dropped()
    assert output.failure is None
    output.write_lines(numbered(range(offered, offered + 5)))
elif sys.argv[3] == "rotate":
    path.rename(str(path) + ".1")
    output.reopen()
    output.flush(0.5)
    rotated = whole_lines(path.read_bytes())
    assert rotated[0] == kept[-1] + 1, "what the old file could not take starts the new one"
output.flush(0.5)
output.close()
print(len(whole_lines(path.read_bytes())), offered, dropped)
"""


@pytest.mark.parametrize("then", ["room", "rotate", "leave"])
def test_a_file_that_may_not_grow_has_no_half_line(tmp_path: Path, then: str) -> None:
    """At the limit whole lines stand in the file; with room, or a new file, the rest follows in order."""
    path = tmp_path / "events.jsonl"
    result = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT_SCRIPT, path, Path(__file__).parent, then],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    written, offered, dropped = map(int, result.stdout.split())
    numbers = whole_lines(path.read_bytes())
    assert len(numbers) == written
    if then == "room":
        assert (dropped, written) == (1, offered - 1 + 5)
        assert numbers == [n for n in range(offered + 5) if n != offered - 1]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
@pytest.mark.parametrize("flags", [os.O_APPEND, 0], ids=["--output", "redirected"])
def test_a_full_disk_has_no_half_line(tmp_path: Path, flags: int) -> None:
    """A disk without space keeps whole lines only; once there is space nothing that was kept is missing."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=True)
    try:
        ballast, path = tmp_path / "ballast", tmp_path / "events.jsonl"
        ballast.write_bytes(bytes(32 * 1024))
        output = Output(Destination(os.open(path, os.O_WRONLY | os.O_CREAT | flags)))
        output.write_lines(numbered(range(250), 203))
        assert output.flush(0.5) > 0
        assert output.failure == "ENOSPC"
        numbers = whole_lines(path.read_bytes())
        assert numbers == list(range(len(numbers)))
        ballast.unlink()
        assert output.flush(FLUSH_S) == 0
        output.close()
        assert whole_lines(path.read_bytes()) == list(range(250))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


STDOUT_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from ebpfdns.publish.output import Output
from test_publish_output import numbered
output = Output.open("-", limit_bytes=100_000)
output.write_lines(numbered(range(int(sys.argv[2]))))
left = output.flush(float(sys.argv[3]))
print(left, output.closed, file=sys.stderr)
"""


def run_on_stdout(stdout: int, lines: int, flush_s: float) -> str:
    script = [sys.executable, "-c", STDOUT_SCRIPT, str(Path(__file__).parent), str(lines), str(flush_s)]
    done = subprocess.run(script, stdout=stdout, stderr=subprocess.PIPE, check=True, text=True, timeout=60)
    return str(done.stderr)


def test_standard_output_stays_blocking_for_others() -> None:
    """O_NONBLOCK does not leak to the shell and the children that share the same pipe."""
    read_fd, write_fd = os.pipe()
    assert run_on_stdout(write_fd, 3, FLUSH_S) == "0 False\n"
    assert not fcntl.fcntl(write_fd, fcntl.F_GETFL) & os.O_NONBLOCK
    assert whole_lines(os.read(read_fd, 4096)) == [0, 1, 2]
    os.close(read_fd)
    assert run_on_stdout(write_fd, 3, FLUSH_S) == "0 True\n"
    os.close(write_fd)


def test_a_process_ends_although_nobody_reads() -> None:
    """A full pipe, with its writer thread waiting, does not keep the agent alive."""
    read_fd, write_fd = os.pipe()
    left, closed = run_on_stdout(write_fd, 400, 0.2).split()
    assert (int(left) > 0, closed) == (True, "False")
    os.close(write_fd)
    os.close(read_fd)


def test_standard_output_to_a_file(tmp_path: Path) -> None:
    """`ebpfdns attach > FILE` writes behind what the shell wrote there, even without O_APPEND."""
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.write(numbered(range(1))[0])
        file.flush()
        assert run_on_stdout(file.fileno(), 2, FLUSH_S) == "0 False\n"
    assert whole_lines(path.read_bytes()) == [0, 0, 1]


def test_closed_standard_output_is_an_error_with_a_remedy() -> None:
    """When fd 1 was closed at start, nothing is written to whatever file got its number."""
    script = "from ebpfdns.publish.output import Output; Output.open('-')"
    shell = f'exec {sys.executable} -c "{script}" >&-'
    done = subprocess.run(["sh", "-c", shell], capture_output=True, check=False, text=True, timeout=60)
    assert "standard output is closed" in done.stderr


def test_a_fifo_without_reader_says_so(tmp_path: Path) -> None:
    """Opening a FIFO does not hang until somebody reads it."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(EbpfdnsError) as caught:
        Output.open(str(fifo))
    assert "reader" in str(caught.value.remedy)


def test_a_device_that_is_always_full_costs_nothing() -> None:
    """Retries on /dev/full are by the clock, not in a loop, and the lines are kept for a while."""
    output = Output.open("/dev/full")
    output.write_lines(numbered(range(10)))
    before_s = resource.getrusage(resource.RUSAGE_SELF)
    assert output.flush(0.5) == 10
    after_s = resource.getrusage(resource.RUSAGE_SELF)
    output.close()
    assert output.failure == "ENOSPC"
    assert after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime < 0.25


def test_a_quiet_output_costs_nothing(tmp_path: Path) -> None:
    """With nothing to write the thread sleeps, although a file is always ready for more."""
    output = Output.open(str(tmp_path / "events.jsonl"))
    output.write_lines(numbered(range(3)))
    output.flush(FLUSH_S)
    before_s = resource.getrusage(resource.RUSAGE_SELF)
    with output._state:
        assert not output._state.wait_for(lambda: output.closed, 0.5)
    after_s = resource.getrusage(resource.RUSAGE_SELF)
    output.close()
    assert after_s.ru_utime + after_s.ru_stime - before_s.ru_utime - before_s.ru_stime < 0.25


def test_the_null_output_keeps_all() -> None:
    """Tests of the pipeline see every line, in order."""
    output = NullOutput()
    output.write_lines([b"1\n"])
    output.write_lines([b"2\n"])
    assert (output.lines, output.flush(0), output.take_dropped()) == ([b"1\n", b"2\n"], 0, 0)
