"""tracefs, where tracepoints have their numbers: found, or mounted where only this process sees it.

Owns: one mount in a private mount namespace. Must not know: which tracepoints are used.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe.host import find_tracefs

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
PLACE = "/sys/kernel/tracing"
REMEDY = "sudo mount -t tracefs tracefs /sys/kernel/tracing"


def ensure_tracefs() -> Path:
    """Where tracefs is. Not mounted: it is, in a mount namespace of our own; nothing is left behind."""
    found = find_tracefs()
    if found is None:
        libc = ctypes.CDLL(None, use_errno=True)
        steps: tuple[tuple[Any, ...], ...] = (
            (libc.unshare, CLONE_NEWNS),
            (libc.mount, b"none", b"/", None, MS_REC | MS_PRIVATE, None),
            (libc.mount, b"tracefs", PLACE.encode(), b"tracefs", 0, None),
        )
        for call, *arguments in steps:
            if call(*arguments) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise HostCannotTraceError(f"tracefs is not mounted, and cannot be ({reason})", remedy=REMEDY)
        found = PLACE
    return Path(found)
