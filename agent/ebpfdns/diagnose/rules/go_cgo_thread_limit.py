"""`go_cgo_thread_limit`: Go resolves through libc, and all lookups that it lets run there are taken.

Owns: what must have been seen, and the words for it. Must not know: other causes.

Go counts its calls of getaddrinfo, each of which takes a thread; who comes later waits without one. A call
whose caller has given up holds its place until libc comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.goroutines import MOST_CALLS, ahead, call_limit, is_idle
from ebpfdns.diagnose.locks import leader
from ebpfdns.diagnose.wording import milliseconds, seconds

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Other

NAMED = 2


def rule(case: LookupCase) -> Cause | None:
    """Nothing has begun for it, and as many calls of libc's resolver are in flight as Go permits."""
    limit, in_flight = call_limit(case), case.situation.libc_calls
    if not is_idle(case) or limit is None or in_flight is None or in_flight < limit:
        return None
    if ahead(case) is not None:
        return None  # it would not take a place of its own
    is_sure = in_flight == limit and case.elapsed_ns >= A_SECOND_NS
    holders = [other for other in case.situation.others if other.lookup.queries]
    return Cause(
        "go_cgo_thread_limit",
        "confirmed" if is_sure else "likely",
        f"The lookup has not begun: Go lets {limit} lookups be in libc at a time, and all these places have "
        f"been taken for {seconds(case.elapsed_ns)}.",
        (_taken(case, limit, in_flight), _queued(case), *(leader(case, h) for h in holders[:NAMED])),
        _remedy(limit, holders),
    )


def _taken(case: LookupCase, limit: int, in_flight: int) -> Evidence:
    nofile = ((case.situation.process or {}).get("limits") or {}).get("nofile")
    why = "" if limit == MOST_CALLS else f", for the limit of file descriptors is {nofile}"
    text = f"{in_flight} calls of libc's resolver are in flight in this process; Go permits {limit}{why}"
    return Evidence(
        "thread_limit_reached", text, {"lookups": in_flight, "limit": limit, "limit_nofile": nofile}
    )


def _queued(case: LookupCase) -> Evidence:
    age = seconds(case.elapsed_ns)
    text = f"the goroutine called Go's resolver {age} ago, and no call of libc has begun for it"
    return Evidence("query_sent", text, {"elapsed_ms": milliseconds(case.elapsed_ns), "queries": 0})


def _remedy(limit: int, holders: list[Other]) -> str:
    cure = f"Cure what holds the others (lookup {holders[0].id})" if holders else "Cure what holds the others"
    more = "" if limit == MOST_CALLS else "; raise `ulimit -n`"
    return f"{cure}; GODEBUG=netdns=go lets Go's own resolver ask, which needs no threads{more}"
