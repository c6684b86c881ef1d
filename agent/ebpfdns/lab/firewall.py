"""A rule of nftables inside a sandbox.

Owns: the nft command. Must not know: what the rule is for.
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


def walled(hook: str, rule: str) -> Callable[[Sandbox], None]:
    """`wall`, ready for a sandbox that comes later."""
    return partial(wall, hook=hook, rule=rule)


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
