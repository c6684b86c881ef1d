"""`rcode_retry`: the server answers, but with an error that makes the resolver try again.

Owns: which rcodes those are, what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import no_reply, question
from ebpfdns.diagnose.wording import dig, listing, milliseconds, seconds, server_text, shown_text, times
from ebpfdns.model.dns_names import rcode_name

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Hop, Query, Server

SERVFAIL, NXDOMAIN = 2, 3
#: glibc goes on to the next server; musl asks again on SERVFAIL, and waits on as if others were no answer.
RETRIED = (SERVFAIL, 4, 5)
STUBS = ("127.0.0.53", "127.0.0.54")
RESOLVED_SAYS = (
    "systemd-resolved says why: resolvectl query NAME; without validation: resolvectl dnssec LINK no"
)


def rule(case: LookupCase) -> Cause | None:
    """An answer has such an rcode, and the lookup went on after it, or failed."""
    bad = [query for query in case.answered if _is_bad(query, case.situation.resolver)]
    if not bad:
        return None
    retried = [query for query in bad if _was_followed(query, case)]
    if not retried and case.lookup.status == "ok":
        return None  # glibc: one good answer and one such error is good enough
    codes = listing(dict.fromkeys(rcode_name(query.rcode or 0) for query in bad))
    servers = list(dict.fromkeys(query.server for query in bad))
    evidence = [_answer(case, query) for query in bad]
    silent = [server for server in case.servers if _is_silent(case, server)]
    evidence += [no_reply(case, server) for server in silent]
    accepted = _answered_upstream(case, bad)
    validated = _validated(case, bad)
    evidence += accepted + validated
    ignored = case.situation.resolver == "musl" and any(query.rcode != SERVFAIL for query in bad)
    what = "musl ignores that and waits" if ignored else _what_follows(case, retried=bool(retried))
    has_followed = bool(retried) or (ignored and _waited_on(case, bad))
    named = listing(map(server_text, servers))
    also = f"; {listing(map(server_text, silent))} does not answer at all" if silent else ""
    if accepted and validated:
        also += "; systemd-resolved had an answer, which most likely does not pass its DNSSEC validation"
    # A silent server among them may be the one that takes the time.
    return Cause(
        "rcode_retry",
        "confirmed" if has_followed and not silent else "likely",
        f"{named} answers with {codes}, and {what}{also}.",
        tuple(evidence),
        f"Try: {dig(servers[0], case.lookup)} (and with +cd, which skips DNSSEC validation); "
        + (RESOLVED_SAYS if validated else f"the server's log should tell the reason of {codes}"),
    )


def _validated(case: LookupCase, bad: list[Query]) -> list[Evidence]:
    """Whether SERVFAIL comes from systemd-resolved, which must refuse what is not signed rightly."""
    dnssec = case.situation.stub_settings.get("dnssec")
    is_stub = any(query.server.address in STUBS and query.rcode == SERVFAIL for query in bad)
    if dnssec != "yes" or not is_stub:
        return []
    text = "DNSSEC=yes: systemd-resolved says SERVFAIL, too, where signatures are missing or wrong"
    return [Evidence("dnssec_validated", text, {"dnssec": dnssec})]


def _answered_upstream(case: LookupCase, bad: list[Query]) -> list[Evidence]:
    """What the daemon that says so was told itself, of the very question: it had an answer."""
    hop = case.situation.chain[0] if case.situation.chain else None
    if hop is None or not hop.is_joined or not any(query.server.address == hop.asked_at for query in bad):
        return []
    asked = {(query.name, query.type) for query in bad}
    good = [one for one in hop.past if one.rcode == 0 and (one.name, one.type) in asked]
    return [_good_answer(hop, query) for query in good]


def _good_answer(hop: Hop, query: Query) -> Evidence:
    name = "systemd-resolved" if hop.is_resolved else shown_text(hop.name or "the daemon")
    waited_ns = max(0, (query.reply_ns or 0) - query.sent_ns)
    records = "1 record" if query.answers == 1 else f"{query.answers} records"
    # A signature is a record beside the one that it signs.
    unsigned = ", so without a signature" if query.answers == 1 else ""
    return Evidence(
        "upstream_answered",
        f"{server_text(query.server)} answered {name} (process {hop.pid}) {question(query)} with NOERROR "
        f"after {seconds(waited_ns)}: {records}{unsigned}",
        {
            "server": query.server.address,
            "port": query.server.port,
            "pid": hop.pid,
            "reply_ms": milliseconds(waited_ns),
            "answers": query.answers,
        },
    )


def _is_bad(query: Query, resolver: str) -> bool:
    if resolver == "musl":
        return query.rcode not in (None, 0, NXDOMAIN)
    return query.rcode in RETRIED


def _was_followed(query: Query, case: LookupCase) -> bool:
    """Whether this question was asked again after its answer, of the same server or another."""
    replied_ns = query.reply_ns or 0
    if query.resent_ns is not None and query.resent_ns > replied_ns:
        return True
    return any(
        (other.name, other.type) == (query.name, query.type) and other.sent_ns > replied_ns
        for other in case.sent
    )


def _waited_on(case: LookupCase, bad: list[Query]) -> bool:
    """Whether the program went on waiting long after the last of these answers."""
    last_ns = max(query.reply_ns or 0 for query in bad)
    return case.at_ns - last_ns >= A_SECOND_NS


def _is_silent(case: LookupCase, server: Server) -> bool:
    """Whether a server owes answers and has given none."""
    return any(query.server == server for query in case.silent) and not any(
        query.server == server for query in case.answered
    )


def _what_follows(case: LookupCase, *, retried: bool) -> str:
    if retried:
        return "the resolver tries again"
    return "the lookup goes on" if case.is_open else "the lookup fails"


def _answer(case: LookupCase, query: Query) -> Evidence:
    rcode = rcode_name(query.rcode or 0)
    waited_ns = case.waited_ns(query)
    asked = f"{server_text(query.server)} answered {question(query)} with {rcode} after {seconds(waited_ns)}"
    return Evidence(
        "rcode_error",
        f"{asked}; it was asked {times(query.attempts)}" if query.attempts > 1 else asked,
        {
            "server": query.server.address,
            "rcode": rcode,
            "reply_ms": milliseconds(waited_ns),
            "sent": query.attempts,
        },
    )
