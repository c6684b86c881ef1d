"""`edns_dropped`: questions with an OPT record, or large answers, get lost on the way; others pass.

Owns: what must have been seen, and the words for it. Must not know: other causes.

Of a large answer of which fragments are missing the others lie in the kernel. Whose they are is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS, NS_PER_S, WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import fragments_incomplete, no_reply
from ebpfdns.diagnose.wording import dig, milliseconds, seconds, server_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Query, Server

#: How long ago an answer may be that says what passes.
LATELY_NS = 60 * NS_PER_S


def rule(case: LookupCase) -> Cause | None:
    """Either of both."""
    return _of_answers(case) or _of_questions(case)


def _of_answers(case: LookupCase) -> Cause | None:
    """A server that did answer is silent, and meanwhile a packet lies here of which fragments are missing."""
    silent = case.silent
    servers = list(dict.fromkeys(query.server for query in silent))
    held = fragments_incomplete(case)
    if not held or len(servers) != 1 or case.has_stray_reply or case.has_unread_answer:
        return None
    server = servers[0]
    before_ns = _answered_before_ns(case, server)
    if before_ns is None:
        return None
    named = server_text(server)
    return Cause(
        "edns_dropped",
        "likely",
        f"{named} answers, but large answers seem to lose fragments on the way; small ones pass.",
        (*held, _another_passed(case, server, before_ns), no_reply(case, server)),
        f"Compare: {dig(server, case.lookup, '+bufsize=1232 +time=2 +tries=1')} with +bufsize=4096. "
        "Let fragments of UDP pass on the way, or let the server send no more than 1,232 bytes by UDP: "
        "what is larger goes by TCP then",
    )


def _answered_before_ns(case: LookupCase, server: Server) -> int | None:
    """When it last answered anything: in this lookup, or the process lately."""
    known = case.situation.answers.get(server.address) or {}
    times = [query.reply_ns for query in case.answered if query.server == server]
    times += [at_ns for at_ns in known.values() if at_ns and case.at_ns - at_ns <= LATELY_NS]
    return max((at_ns for at_ns in times if at_ns is not None), default=None)


def _another_passed(case: LookupCase, server: Server, at_ns: int) -> Evidence:
    ago_ns = max(0, case.at_ns - at_ns)
    return Evidence(
        "small_answers_pass",
        f"{server_text(server)} answered another question {seconds(ago_ns)} ago",
        {"server": server.address, "answered_before_ms": milliseconds(ago_ns)},
    )


def _of_questions(case: LookupCase) -> Cause | None:
    """All that waits has an OPT record, and the same server has answered a question without one lately."""
    silent = case.silent
    if not silent or case.has_stray_reply or not all(query.has_edns for query in silent):
        return None
    if len({query.server for query in silent}) != 1:
        return None
    server = silent[0].server
    if max(map(case.waited_ns, silent)) < WORTH_SAYING_NS or _answers_edns(case, server):
        return None
    plain_ns = _plain_answer_ns(case, server)
    if plain_ns is None or case.at_ns - plain_ns > LATELY_NS:
        return None
    # An answer while the other question waits leaves no doubt that the server is up.
    asked_ns = min(query.sent_ns for query in silent)
    is_sure = plain_ns >= asked_ns and max(map(case.waited_ns, silent)) >= A_SECOND_NS
    named = server_text(server)
    return Cause(
        "edns_dropped",
        "confirmed" if is_sure else "likely",
        f"{named} does not answer questions with EDNS (an OPT record); without it, it does.",
        (_unanswered(case, silent), _passed(case, server, plain_ns), no_reply(case, server)),
        f"Compare: {dig(server, case.lookup, '+bufsize=1232 +time=2 +tries=1')} with +noedns. "
        "Repair the firewall on the way, or remove: options edns0 trust-ad",
    )


def _answers_edns(case: LookupCase, server: Server) -> bool:
    """Whether it did answer such a question: in this lookup, or lately."""
    here = any(query.has_edns and query.server == server for query in case.answered)
    edns_ns = (case.situation.answers.get(server.address) or {}).get("edns_ns")
    return here or (edns_ns is not None and case.at_ns - edns_ns <= LATELY_NS)


def _plain_answer_ns(case: LookupCase, server: Server) -> int | None:
    """When it last answered a question without an OPT record."""
    here = [query.reply_ns for query in case.answered if not query.has_edns and query.server == server]
    known = (case.situation.answers.get(server.address) or {}).get("plain_ns")
    return max((at_ns for at_ns in [*here, known] if at_ns is not None), default=None)


def _unanswered(case: LookupCase, silent: tuple[Query, ...]) -> Evidence:
    waited_ns = max(map(case.waited_ns, silent))
    count = len(silent)
    return Evidence(
        "edns_unanswered",
        f"{'the question' if count == 1 else f'each of {count} questions'} that waits has an OPT record",
        {"queries": count, "waited_ms": milliseconds(waited_ns)},
    )


def _passed(case: LookupCase, server: Server, plain_ns: int) -> Evidence:
    ago_ns = max(0, case.at_ns - plain_ns)
    return Evidence(
        "small_answers_pass",
        f"{server_text(server)} answered a question without an OPT record {seconds(ago_ns)} ago",
        {"server": server.address, "answered_before_ms": milliseconds(ago_ns)},
    )
