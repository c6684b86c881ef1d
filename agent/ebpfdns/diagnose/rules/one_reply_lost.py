"""`one_reply_lost`: of the questions for IPv4 and IPv6 one was answered, the other's answer is missing.

Owns: what a pair of questions is, what must have been seen, and the words for it.
Must not know: other causes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, AAAA, A
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import question, reply_seen
from ebpfdns.diagnose.wording import dig, milliseconds, seconds, server_text, times
from ebpfdns.model.dns_names import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Query

GOOD_RCODES = (0, 3)
#: An answer this soon after a repetition belongs to the repetition.
SOON_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Pair:
    """The two types of one name at one server: one answered in time, one not."""

    answered: Query
    lost: tuple[Query, ...]

    @property
    def asked(self) -> int:
        """How often the lost one was asked."""
        return sum(query.attempts for query in self.lost)


def rule(case: LookupCase) -> Cause | None:
    """One type has a good answer, the other none after a second, or only after it was asked again."""
    if case.has_stray_reply:
        return None
    pairs = list(_pairs(case))
    if not pairs:
        return None
    pair = pairs[-1]
    first = pair.lost[0]
    waited_ns = max(map(case.waited_ns, pair.lost))
    missing = type_name(first.type or 0)
    evidence = [reply_seen(case, pair.answered), _one_type_unanswered(case, pair, waited_ns)]
    if pair.asked > 1:
        text = f"{question(first)} was asked {times(pair.asked)}"
        evidence.append(Evidence("retried_serially", text, {"sent": pair.asked}))
    is_sure = pair.asked > 1 or case.lookup.status in ("ok", "failed")
    answered = type_name(pair.answered.type or 0)
    gap = seconds(waited_ns)
    state = f"has been missing for {gap}" if case.is_open else f"was missing for {gap}"
    return Cause(
        "one_reply_lost",
        "confirmed" if is_sure else "likely",
        f"{server_text(first.server)} answered the {answered} question; its answer to the {missing} question "
        f"{state}.",
        tuple(evidence),
        "Add to /etc/resolv.conf (glibc): options single-request-reopen; or run a DNS cache on the node. "
        f"If it is always {missing}, the server drops those questions; "
        f"try: {dig(first.server, case.lookup)} {missing}",
    )


def _pairs(case: LookupCase) -> Iterator[Pair]:
    """Every such pair of the lookup, in the order in which it was asked."""
    asked = [query for query in case.sent if query.transport == "udp" and query.name is not None]
    for name, server in dict.fromkeys(((query.name or b"").lower(), query.server) for query in asked):
        of_pair = [q for q in asked if (q.name or b"").lower() == name and q.server == server]
        for good, bad in ((A, AAAA), (AAAA, A)):
            answers = [q for q in of_pair if q.type == good and _is_good(q) and not _was_repeated_for(q)]
            lost = tuple(q for q in of_pair if q.type == bad)
            if answers and lost and _is_lost(case, lost):
                yield Pair(answers[0], lost)


def _is_good(query: Query) -> bool:
    return query.is_answered and query.rcode in GOOD_RCODES


def _was_repeated_for(query: Query) -> bool:
    """Whether its answer came only after a repetition."""
    return query.resent_ns is not None and query.resent_ns <= (query.reply_ns or 0)


def _is_lost(case: LookupCase, queries: tuple[Query, ...]) -> bool:
    """Whether the first attempt had no answer for a second: none at all, or one to a repetition only."""
    first, *repeated = queries
    if case.is_open_question(first):
        return case.waited_ns(first) >= A_SECOND_NS
    if not _is_good(first) or repeated or not _was_repeated_for(first):
        return False
    return case.waited_ns(first) >= A_SECOND_NS and (first.reply_ns or 0) - (first.resent_ns or 0) < SOON_NS


def _one_type_unanswered(case: LookupCase, pair: Pair, waited_ns: int) -> Evidence:
    first = pair.lost[0]
    if any(query.is_answered for query in pair.lost):
        text = f"{question(first)} was answered only when it was asked again"
    else:
        verb = "has not been answered" if case.is_open else "was not answered"
        text = f"{question(first)} {verb} for {seconds(waited_ns)}"
    return Evidence(
        "one_type_unanswered",
        text,
        {
            "server": first.server.address,
            "type": type_name(first.type or 0),
            "waited_ms": milliseconds(waited_ns),
        },
    )
