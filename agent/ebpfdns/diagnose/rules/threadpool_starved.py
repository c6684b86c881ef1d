"""`threadpool_starved`: the lookup is queued behind others in a small thread pool.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.locks import leader
from ebpfdns.diagnose.wording import listing, seconds, shown_text, subject

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Other

QUEUED = "uv_getaddrinfo"
#: The half of libuv's default pool of four that may be at lookups.
ENOUGH = 2
POOL_THREAD = "libuv-worker"
NAMED = 4


def rule(case: LookupCase) -> Cause | None:
    """It lies in libuv's queue, and lookups of other threads, or other work, hold the pool."""
    if case.lookup.api != QUEUED or not case.is_open:
        return None
    holders = [other for other in case.situation.others if _holds_a_thread(other)]
    workers = list(_busy_workers((case.situation.process or {}).get("threads") or ()))
    if not holders:
        return _by_other_work(case, workers)
    is_sure = len(holders) >= ENOUGH and case.elapsed_ns >= A_SECOND_NS
    return Cause(
        "threadpool_starved",
        "confirmed" if is_sure else "likely",
        f"The lookup has not begun: it lies in libuv's queue for {seconds(case.elapsed_ns)}, behind "
        f"{_named(holders)}.",
        (_queued(case), _held(holders), *(leader(case, holder) for holder in holders[:ENOUGH])),
        "Cure what holds the others; set UV_THREADPOOL_SIZE=64 for the program; or let it use dns.resolve "
        "(c-ares), which needs no thread",
    )


def _by_other_work(case: LookupCase, workers: list[str]) -> Cause:
    """No lookup is under way: what else the threads of the pool do."""
    if workers:
        text = f"no other lookup is known to be stuck; the threads of the pool sit in {listing(workers)}"
        held = Evidence("thread_limit_reached", text, {"threads": len(workers)})
        behind = ", and other work holds the pool."
    else:
        held = Evidence("probe_missing", "not seen: what the threads of the pool do")
        behind = "."
    return Cause(
        "threadpool_starved",
        "likely" if workers else "possible",
        f"The lookup has not begun: it lies in libuv's queue for {seconds(case.elapsed_ns)}{behind}",
        (_queued(case), held),
        "Set UV_THREADPOOL_SIZE=64 for the program; files, zlib and crypto share the pool with lookups",
    )


def _holds_a_thread(other: Other) -> bool:
    return other.lookup.api == "getaddrinfo" and other.lookup.status == "in_flight"


def _busy_workers(threads: Iterable[dict[str, Any]]) -> Iterable[str]:
    """What each thread of the pool does that is known by its name and not idle."""
    for thread in threads:
        if thread.get("name") == POOL_THREAD and thread.get("syscall") not in (None, "futex"):
            yield shown_text(str(thread["syscall"]))


def _named(holders: list[Other]) -> str:
    names = [subject(holder.lookup) for holder in holders[:NAMED]]
    return listing([*names, f"{len(holders) - NAMED} more"] if len(holders) > NAMED else names)


def _queued(case: LookupCase) -> Evidence:
    age = seconds(case.elapsed_ns)
    text = f"uv_getaddrinfo was called {age} ago, and no thread has begun with it"
    return Evidence("query_sent", text, {"elapsed_ms": round(case.elapsed_ns / 1e6, 3), "queries": 0})


def _held(holders: list[Other]) -> Evidence:
    text = (
        f"{len(holders)} lookups of this process are stuck; libuv lets half of its pool (4 threads unless "
        "UV_THREADPOOL_SIZE says otherwise) be at lookups"
    )
    return Evidence("thread_limit_reached", text, {"lookups": len(holders)})
