"""A rule of nftables inside a sandbox.

Owns: the nft command, and that lo takes packets of ordinary size only. Must not know: what the rule is for.
"""

from __future__ import annotations

import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.namespace import Sandbox

#: as on most networks
SMALL_MTU_BYTES = 1500


def walled(hook: str, rule: str) -> Callable[[Sandbox], None]:
    """`wall`, ready for a sandbox that comes later."""
    return partial(wall, hook=hook, rule=rule)


def fragmenting(sandbox: Sandbox) -> None:
    """Large packets go in fragments on `lo`, and all but the first ones are dropped when they come."""
    small_packets(sandbox)
    wall(sandbox, "prerouting", "ip frag-off & 0x1fff != 0 drop")


def small_packets(sandbox: Sandbox) -> None:
    """Let large packets go in fragments on `lo`."""
    small = sandbox.popen(["ip", "link", "set", "lo", "mtu", str(SMALL_MTU_BYTES)])
    if small.wait():
        raise EbpfdnsError("the mtu of lo cannot be changed", remedy="apt-get install iproute2")


def wall(sandbox: Sandbox, hook: str, rule: str) -> None:
    """A rule at a hook of the sandbox's own netfilter. EbpfdnsError without nft."""
    if shutil.which("nft") is None:
        raise EbpfdnsError("this fault is made with nftables", remedy="apt-get install nftables")
    chain = f"add chain inet lab wall {{ type filter hook {hook} priority 0; }}"
    rules = f"add table inet lab; {chain}; add rule inet lab wall {rule}"
    nft = sandbox.popen(["nft", rules], stderr=subprocess.PIPE, text=True)
    errors = nft.communicate()[1]
    if nft.returncode:
        raise EbpfdnsError(f"nft refuses the rule: {errors}", remedy="a kernel with nf_tables")
