"""`target_stopped`: the program itself is stopped.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause
from ebpfdns.diagnose.observations import query_sent, thread_waits

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """Its thread is in state T (a signal) or t (a debugger)."""
    thread = case.thread
    if thread is None or not thread.is_stopped:
        return None
    pid = case.lookup.pid
    is_debugged = thread.state == "t"
    who = "held by a debugger" if is_debugged else "stopped by a signal"
    release = f"Let the debugger of process {pid} go on" if is_debugged else f"Try: kill -CONT {pid}"
    return Cause(
        "target_stopped",
        "confirmed",
        f"The program itself is {who}: it cannot read an answer, whatever the servers do.",
        (thread_waits(thread, case.elapsed_ns), query_sent(case)),
        release,
    )
