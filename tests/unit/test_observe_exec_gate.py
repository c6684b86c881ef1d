"""Where programs can be run from, and signals with their senders."""

from __future__ import annotations

import os
import subprocess
import sys

from ebpfdns.observe import exec_gate

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:2 - proc proc rw
24 22 0:30 / /mnt/a\\040b\\134c rw - tmpfs none rw
25 22 0:31 / /mnt/ä rw - tmpfs none rw
not a mount
"""


def test_places_are_those_that_programs_can_be_run_from() -> None:
    """Mounts with noexec are left out; blanks, backslashes and letters of a place are what they were."""
    assert list(exec_gate._places(MOUNTS)) == ["/", "/mnt/a b\\c", "/mnt/ä"]


#: In a process of its own: a runner of tests may have threads, which do not block the signal.
SIGNALLED = """
import os, signal
from ebpfdns.observe.signal_queue import SignalQueue

queue = SignalQueue({signal.SIGUSR1, signal.SIGHUP})
os.kill(os.getpid(), signal.SIGUSR1)
taken = [(sent.number, sent.is_kernels) for sent in queue.take()]
left = queue.take()
queue.close()
blocked = signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(taken == [(signal.SIGUSR1, False)], left, blocked)
"""


def test_a_signal_waits_and_tells_who_sent_it() -> None:
    """One that a process sends is told as such; afterwards the signal does what it did before."""
    command = [sys.executable, "-c", SIGNALLED]
    found = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": found}
    )
    assert done.stdout == "True [] False\n"
