"""What a look at a stuck process costs: it is paid once for each line about something stuck.

Owns: processes with threads that wait for answers, and timing the looks at them.
Must not know: what the agent makes of what it sees.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from table import Row

from ebpfdns import netlink
from ebpfdns.observe.looks import Looks
from ebpfdns.observe.processes import threads

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Each thread waits for an answer of its own socket, as a resolver does; one unix socket is connected.
TARGET = """
import select, socket, sys, threading
unix = socket.socketpair()
ready = threading.Barrier(int(sys.argv[1]) + 1)
def wait():
    asks = socket.socket(type=socket.SOCK_DGRAM)
    asks.connect(("127.0.0.1", 53))
    poll = select.poll()
    poll.register(asks, select.POLLIN)
    ready.wait()
    poll.poll()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=wait, daemon=True).start()
ready.wait()
print("ready", flush=True)
input()
"""


def measure(count: int, passes: int) -> list[Row]:
    """The shortest time to look at a process with so many stuck threads: the process, and its threads."""
    netlink.load_beside().join()
    of_process_ms, of_threads_ms = [], []
    with _target(count) as pid:
        stuck = threads(pid)[1:]
        for _ in range(passes):
            looks = Looks(lambda asked: asked)  # one that is used again has seen the process a moment ago
            began_s = time.perf_counter()
            looks.process(pid)
            between_s = time.perf_counter()
            looks.threads(pid, stuck)
            of_process_ms.append((between_s - began_s) * 1000)
            of_threads_ms.append((time.perf_counter() - between_s) * 1000)
    return [
        Row(
            what=f"a look at a process, {count} {'thread' if count == 1 else 'threads'} of it stuck",
            value=min(of_process_ms),
            unit="ms",
        ),
        Row(what="  and at each stuck thread, with its stack", value=min(of_threads_ms) / count, unit="ms"),
    ]


@contextlib.contextmanager
def _target(count: int) -> Iterator[int]:
    argv = [sys.executable, "-c", TARGET, str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as target:
        try:
            if target.stdout is None or not target.stdout.readline():
                raise RuntimeError("the process to look at did not start")
            yield target.pid
        finally:
            target.kill()
