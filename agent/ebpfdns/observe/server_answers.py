"""Which kind of question each server last answered a process, and when.

Owns: the map `answers_of`. Must not know: what follows from it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from ebpfdns.model.decode import address_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.observe.kernel_maps import KernelMaps

_KEY, _VALUE = struct.Struct("=II16s"), struct.Struct("=QQ")


def server_answers(maps: KernelMaps, host_pids: Iterable[int]) -> dict[str, dict[str, Any]]:
    """Of these processes: the times, by the text "host-pid address"."""
    wanted = set(host_pids)
    found: dict[str, dict[str, Any]] = {}
    for key, value in maps.answers_of() if wanted else ():
        host_pid, family, address = _KEY.unpack(key)
        text = address_text(family, address) if host_pid in wanted else None
        if text is not None:
            plain_ns, edns_ns = _VALUE.unpack(value)
            found[f"{host_pid} {text}"] = {"plain_ns": plain_ns or None, "edns_ns": edns_ns or None}
    return found
