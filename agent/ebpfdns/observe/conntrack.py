"""How full the table of connections is that netfilter tracks, in the network namespace of a process.

Owns: /proc/sys/net/netfilter/nf_conntrack_{count,max}. Must not know: what follows from a full table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ebpfdns import netlink
from ebpfdns.errors import EbpfdnsError
from ebpfdns.observe import proc_files

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMES = ("count", "max")
DIRECTORY = "/proc/sys/net/netfilter"


def conntrack(tid: int) -> dict[str, int] | None:
    """{count, max}; None where nothing tracks connections, or it may not be read."""
    namespace = f"/proc/{tid}/ns/net"
    where = proc_files.link(namespace)
    if where is None:
        return None
    if where == proc_files.link("/proc/self/ns/net"):
        return parse(_words())
    # /proc/sys/net has the numbers of whoever opens it.
    try:
        netns_fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse(netlink.in_netns(netns_fd, _words))
    except (EbpfdnsError, OSError):
        return None
    finally:
        os.close(netns_fd)


def parse(words: Sequence[str]) -> dict[str, int] | None:
    """Two numbers, or nothing."""
    if not all(word.isascii() and word.isdigit() for word in words):
        return None
    return dict(zip(NAMES, map(int, words), strict=True))


def _words() -> list[str]:
    return [proc_files.text(f"{DIRECTORY}/nf_conntrack_{name}").strip() for name in NAMES]
