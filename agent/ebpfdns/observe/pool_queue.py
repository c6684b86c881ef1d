"""Requests in a thread pool's queue: of those that the kernel has seen coming, the ones still there.

Owns: telling them from those that were begun with, which are forgotten. Must not know: lines, causes.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from ebpfdns.model import boundary
from ebpfdns.observe import memory, thread_pools

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.kernel_maps import KernelMaps

NAME_AT = {name: at for name, at, _ in boundary.CALL.offsets()}["name"]
NAME = struct.Struct("=Q")


def still_queued(
    maps: KernelMaps, alive_tid: Callable[[int], int], older_than_ns: int
) -> list[tuple[int, bytes]]:
    """(key, struct call) of each, with where its name lies in the process's memory."""
    found = []
    for key, raw in maps.queued(older_than_ns):
        seen = boundary.CALL.unpack(raw)
        read = functools.partial(memory.read_memory, alive_tid(seen.pid))
        hostname = thread_pools.waiting_hostname(seen.name, read)
        if hostname is None:
            maps.forget_queued(key)
        else:
            found.append((key, raw[:NAME_AT] + NAME.pack(hostname) + raw[NAME_AT + NAME.size :]))
    return found
