"""What the host is called for a process: the name in its UTS namespace, which a container has of its own.

Owns: the way into that namespace, and back out by ending the thread that went. Must not know: DNS.
"""

from __future__ import annotations

import ctypes
import os
import threading

CLONE_NEWUTS = 0x0400_0000


def host_name(tid: int) -> str | None:
    """As gethostname(2) tells a thread; None when that may not be asked."""
    place = f"/proc/{tid}/ns/uts"
    try:
        if os.stat(place).st_ino == os.stat("/proc/self/ns/uts").st_ino:  # noqa: PTH116 - of /proc
            return os.uname().nodename
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _name_in(fd)
    finally:
        os.close(fd)


def _name_in(namespace_fd: int) -> str | None:
    """A thread goes there, and never comes back: a namespace is a thread's own."""
    found: list[str] = []

    def go() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace_fd, CLONE_NEWUTS) == 0:
            found.append(os.uname().nodename)

    thread = threading.Thread(target=go, name="host-name")
    thread.start()
    thread.join()
    return found[0] if found else None
