"""Signals as bytes in a pipe, so that the loop meets them between two turns and never inside one.

Owns: the handlers and the pipe, for the time of a session. Must not know: what a signal is taken for.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_AT_ONCE = 64


@contextlib.contextmanager
def signal_pipe() -> Iterator[int]:
    """A descriptor that is readable when a signal has come; the former handlers are put back afterwards."""
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    previous_fd = signal.set_wakeup_fd(write_fd)
    try:
        yield read_fd
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(read_fd)
        os.close(write_fd)


def read_signals(pipe_fd: int) -> list[int]:
    """The signals that have come."""
    return list(os.read(pipe_fd, MOST_AT_ONCE))
