"""`late_reply`: the server does answer, but later than the resolver waits.

Owns: when an answer is late, what must have been seen, and the words for it. Must not know: other causes.

A reply soon after a repetition answers the repetition: then the first question or its answer was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import question
from ebpfdns.diagnose.wording import dig, milliseconds, seconds, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Query

SOON_NS = 500_000_000


def rule(case: LookupCase) -> Cause | None:
    """A reply came after the resolver had asked again, or had moved on, or had closed the socket."""
    late = [query for query in case.answered if query.transport == "udp" and _is_late(case, query)]
    late += [query for query in case.sent if _met_a_closed_socket(case, query)]
    if not late:
        return None
    server = late[0].server
    named = server_text(server)
    slowest_ns = max(_took_ns(case, query) for query in late)
    of_server = case.queries_to(server)
    # One late answer may be a lost question and a slow second one; not so if all of them were late.
    is_pattern = len(late) > 1 and all(query in late for query in of_server)
    was_asked_once = any(
        q.late_ns is not None or (_came_after_the_next_server(case, q) and q.attempts == 1) for q in late
    )
    return Cause(
        "late_reply",
        "confirmed" if is_pattern or was_asked_once else "likely",
        f"{named} does answer, but only after {seconds(slowest_ns)}: later than the resolver waits.",
        tuple(_reply_late(case, query) for query in late),
        f"Find out what {named} waits for; try: {dig(server, case.lookup, '+time=15 +tries=1')}. "
        f"As a stopgap: options timeout:{_enough_s(slowest_ns)} in /etc/resolv.conf",
    )


def _took_ns(case: LookupCase, query: Query) -> int:
    """From the question to its answer, also to one that nobody could read."""
    return case.waited_ns(query) if query.late_ns is None else query.late_ns - query.sent_ns


def _met_a_closed_socket(case: LookupCase, query: Query) -> bool:
    """Whether nobody could take it any more. At once is not late: the resolver went on by TCP."""
    if query.late_ns is None or case.went_on_by_tcp(query):
        return False
    return query.late_ns - query.sent_ns >= WORTH_SAYING_NS


def _is_late(case: LookupCase, query: Query) -> bool:
    return _came_after_the_next_server(case, query) or _came_after_the_repetition(case, query)


def _came_after_the_next_server(case: LookupCase, query: Query) -> bool:
    """Whether another server was asked meanwhile (musl asks all at once: that is no sign)."""
    reply_ns = query.reply_ns or 0
    if query.resent_ns is not None and query.resent_ns <= reply_ns < query.resent_ns + SOON_NS:
        return False
    return any(
        other.server != query.server
        and other.transport == "udp"
        and query.sent_ns + A_SECOND_NS <= other.sent_ns <= reply_ns
        for other in case.sent
    )


def _came_after_the_repetition(case: LookupCase, query: Query) -> bool:
    """Whether it was asked again meanwhile, and not just before (musl repeats long before it gives up)."""
    if query.resent_ns is None or case.situation.resolver == "musl":
        return False
    is_long_after = (query.reply_ns or 0) >= query.resent_ns + SOON_NS
    return is_long_after and query.resent_ns >= query.sent_ns + A_SECOND_NS


def _reply_late(case: LookupCase, query: Query) -> Evidence:
    waited_ns = _took_ns(case, query)
    numbers: Numbers = {
        "server": query.server.address,
        "reply_ms": milliseconds(waited_ns),
        "sent": query.attempts,
    }
    if query.late_ns is not None:
        return Evidence(
            "reply_late",
            f"{server_text(query.server)} answered {question(query)} after {seconds(waited_ns)}, "
            "when its socket was closed",
            numbers,
        )
    return Evidence(
        "reply_late",
        f"{server_text(query.server)} answered {question(query)} after {seconds(waited_ns)}, "
        "when the resolver had given that attempt up",
        numbers,
    )


def _enough_s(waited_ns: int) -> int:
    """A time-out that would do, as far as resolv.conf can say it."""
    return min(30, max(10, waited_ns // 1_000_000_000 + 2))
