"""The system calls a sandbox needs and Python 3.11 does not have: unshare, setns, mount, prctl.

Owns: their numbers and flags, and turning -1 into OSError.
Must not know: anything else. Standard library only: it runs in interpreters without `site`.
"""

from __future__ import annotations

import ctypes
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000

MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for new ones."""
    _check(_libc.unshare(flags), "unshare")


def setns(namespace_fd: int, kind: int) -> None:
    """Enter the namespace that `namespace_fd` refers to."""
    _check(_libc.setns(namespace_fd, kind), "setns")


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    """Mount `source` on `target`."""
    paths = (source.encode(), target.encode(), filesystem.encode())
    _check(_libc.mount(*paths, ctypes.c_ulong(flags), options.encode()), f"mount {target}")


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent goes away, however that happens."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl")
    if os.getppid() != parent_pid:  # it went away before the call
        os.kill(os.getpid(), signal.SIGKILL)


def be_called(name: str) -> None:
    """What `ps` and everybody else sees of this process, instead of `python`; at most 15 bytes."""
    _check(_libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0), "prctl")


def _check(result: int, call: str) -> None:
    """Raise OSError when a system call failed."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), call)
