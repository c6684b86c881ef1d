"""`fork_lock_inherited`: a forked child waits for a lock whose owner does not exist in it.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import asked_nobody
from ebpfdns.diagnose.locks import lock_wait, sits_in_futex, waits_for_lock

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase


def rule(case: LookupCase) -> Cause | None:
    """A process that was forked and runs no other program since waits for a lock, and has no other thread.

    A private lock is released by threads of its own process only: with a single thread it never will be.
    """
    process = case.situation.process or {}
    if not process.get("forked_without_exec") or case.lookup.queries or case.lookup.is_wire:
        return None
    lock = lock_wait(case.situation.thread) if sits_in_futex(case) else None
    threads = process.get("threads_total")
    if lock is None or case.situation.others or threads not in (1, None):
        return None
    function = "the lookup" if case.lookup.api == "none" else case.lookup.api
    is_proved = threads == 1 and lock.is_private and case.elapsed_ns >= A_SECOND_NS
    return Cause(
        "fork_lock_inherited",
        "confirmed" if is_proved else "likely",
        f"This process was forked while another thread of its parent held a lock; in the child nobody can "
        f"release it, so {function} waits for ever.",
        (_forked(threads), waits_for_lock(case), asked_nobody(case)),
        "Start another program after fork (exec), or fork before threads start; in Python: "
        'multiprocessing.set_start_method("spawn")',
    )


def _forked(threads: int | None) -> Evidence:
    alone = "and has no other thread" if threads == 1 else "how many threads it has was not seen"
    text = f"the process was forked from another one, runs no other program since, {alone}"
    return Evidence("forked_without_exec", text, {"threads": threads})
