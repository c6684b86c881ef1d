"""How many calls of libc's resolver a process has in flight: Go lets only so many be made at once.

Owns: which entries of `calls` are such ones, and whose. Must not know: what follows from their number.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ebpfdns.model import boundary
from ebpfdns.model.boundary import Api, go_host_pid, is_go_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.kernel_maps import KernelMaps

#: Go calls these, each on a thread of its own.
OF_GO = frozenset({Api.GETADDRINFO, Api.GETNAMEINFO, Api.RES_SEARCH, Api.RES_NSEARCH})
API_AT = {name: at for name, at, _ in boundary.CALL.offsets()}["api"]


def libc_calls(maps: KernelMaps, waiting: Iterable[tuple[bytes, int, int, int]]) -> dict[str, int]:
    """Pid → calls in flight, of the processes of those (struct call, key, pid, tid) that are goroutines'."""
    pids = {go_host_pid(key): pid for _, key, pid, _ in waiting if is_go_key(key)}
    if not pids:
        return {}
    counts = Counter(
        key >> 32 for key, raw in maps.calls_in_flight() if not is_go_key(key) and raw[API_AT] in OF_GO
    )
    return {str(pid): counts[host_pid] for host_pid, pid in pids.items()}
