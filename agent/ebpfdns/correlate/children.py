"""A lookup in a child that is not traced, as a lookup like any other that began before tracing.

Owns: that translation. Must not know: how the child was found, causes, lines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfdns.model.facts import Lookup, Parent

if TYPE_CHECKING:
    from ebpfdns.correlate.items import ChildLookup


#: In the key of such a lookup: no map of the kernel has one.
CHILD_BIT = 1 << 60


def lookup_of(child: ChildLookup) -> Lookup:
    """In flight, of unknown age and name."""
    return Lookup(
        key=child.key,
        start_ns=child.found_ns,
        pid=child.pid,
        tid=child.tid,
        host_pid=child.pid,
        api="none",
        status="in_flight",
        comm=(child.thread.get("name") or "").encode("utf-8", "backslashreplace"),
        before_attach=True,
    )


def ended(child: ChildLookup) -> Lookup:
    """The same after its thread has left it: how was not seen."""
    return replace(lookup_of(child), status="unseen", end_ns=child.seen_ns)


def parent_of(child: ChildLookup) -> Parent:
    """The target whose child it is."""
    return Parent(child.parent_pid, child.parent_name, child.parent_syscall)
