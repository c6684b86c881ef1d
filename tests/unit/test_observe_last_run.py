"""How long a thread has slept: never more than it has, and told of no thread that runs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from ebpfdns.observe.last_run import asleep_ns

OWN = Path(f"/proc/{os.getpid()}/sched")
pytestmark = pytest.mark.skipif(not OWN.exists(), reason="a kernel without CONFIG_SCHED_DEBUG")
THREADS = 5


def test_a_thread_has_slept_no_longer_than_it_has() -> None:
    """The bound holds for each thread, whichever processor it slept on."""
    began_ns: dict[int, int] = {}
    end = threading.Event()

    def sleep() -> None:
        began_ns[threading.get_native_id()] = time.monotonic_ns()
        end.wait()

    threads = [threading.Thread(target=sleep) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    while len(began_ns) < THREADS:
        time.sleep(0.001)
    found = asleep_ns(os.getpid(), list(began_ns))
    now_ns = time.monotonic_ns()
    end.set()
    for thread in threads:
        thread.join()
    assert all(0 < found[tid] <= now_ns - began_ns[tid] for tid in found)


def test_what_cannot_be_told_is_left_out() -> None:
    """A thread that runs, or is gone, has no such time."""
    assert asleep_ns(os.getpid(), [threading.get_native_id(), 2**22 + 1]) == {}


def test_this_thread_may_run_where_it_could_before() -> None:
    """To ask a processor for its time leaves no trace."""
    before = os.sched_getaffinity(0)
    asleep_ns(1, [1])
    assert os.sched_getaffinity(0) == before
