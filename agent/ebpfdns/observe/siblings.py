"""The other addresses that a lookup gave beside the one that a connect goes to, and whether they work.

Owns: joining the kernel's memory of given addresses to connects that are stuck. Read at most once a scan.
Must not know: what follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.model import boundary
from ebpfdns.model.boundary import ConnectFlag
from ebpfdns.model.decode import address_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.kernel_maps import KernelMaps

MAX_SIBLINGS = 16


class Siblings:
    """Of one moment. `open_connects`: struct connect of all that are stuck."""

    def __init__(self, maps: KernelMaps, open_connects: Sequence[bytes]) -> None:
        self._maps = maps
        self._open_connects = open_connects

    def of(self, connects: Sequence[bytes]) -> dict[str, list[list[Any]]]:
        """Key of each connect whose lookup gave more addresses → those, as `Scan.siblings` holds them."""
        wanted = [
            seen for seen in map(boundary.CONNECT.unpack, connects) if seen.flags & ConnectFlag.HAS_LOOKUP
        ]
        if not wanted:
            return {}
        given = self._maps.given_addresses()
        stuck = {
            (seen.host_pid, seen.family, seen.address)
            for seen in map(boundary.CONNECT.unpack, self._open_connects)
            if not seen.flags & ConnectFlag.IS_TLS
        }
        found: dict[str, list[list[Any]]] = {}
        for seen in wanted:
            beside = [
                [
                    address_text(family, address),
                    connected_ns or None,
                    (seen.host_pid, family, address) in stuck,
                ]
                for key, start_ns, family, address, connected_ns in given
                if (key, start_ns) == (seen.lookup_key, seen.lookup_start_ns)
                and (family, address) != (seen.family, seen.address)
            ]
            if beside:
                found[str(seen.key)] = sorted(beside, key=lambda entry: str(entry[0]))[:MAX_SIBLINGS]
        return found


def _has_lookup(seen: Any) -> bool:  # noqa: ANN401 - a tuple of boundary.CONNECT
    return bool(seen.flags & ConnectFlag.HAS_LOOKUP)
