"""`child_process`: the traced process only waits; the lookup is in its child, which is not traced.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import sockets, thread_waits
from ebpfdns.diagnose.wording import milliseconds, seconds, shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers

#: System calls in which a process waits for another one, or for what that writes.
WAITS_FOR_CHILD = frozenset(
    {"wait4", "waitid", "read", "readv", "poll", "ppoll", "select", "pselect6", "rt_sigsuspend"}
)


def rule(case: LookupCase) -> Cause | None:
    """The lookup is of a process that nobody traces, but whose parent somebody does."""
    parent = case.situation.parent
    if parent is None:
        return None
    child, name = case.lookup.pid, shown_text(parent.name or "the traced process")
    waits = parent.syscall in WAITS_FOR_CHILD
    age = seconds(case.elapsed_ns)
    text = f"process {child}, a child of {name} (pid {parent.pid}), has been in a lookup for at least {age}"
    numbers: Numbers = {
        "pid": child,
        "parent_pid": parent.pid,
        "parent_syscall": parent.syscall,
        "at_least_ms": milliseconds(case.elapsed_ns),
    }
    evidence = [Evidence("child_has_lookup", text, numbers)]
    if case.thread is not None:
        evidence += [thread_waits(case.thread, case.elapsed_ns), *sockets(case.thread)]
    return Cause(
        "child_process",
        "confirmed" if waits else "likely",
        f"{name} (pid {parent.pid}) only waits: the lookup is in its child, process {child}.",
        tuple(evidence),
        f"Try: ebpfdns attach --pid {child}, or --children with pid {parent.pid}, to see why",
    )
