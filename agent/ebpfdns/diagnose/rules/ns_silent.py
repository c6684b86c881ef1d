"""`ns_silent`: every DNS server this process asks gets the question, and none answers.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import is_local
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import (
    errors,
    fragments_incomplete,
    no_reply,
    schedule,
    sockets,
    thread_waits,
)
from ebpfdns.diagnose.wording import dig, listing, server_text, shown_text
from ebpfdns.model.facts import DROPS_UNSEEN

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Server


def rule(case: LookupCase) -> Cause | None:
    """Questions wait, nothing was ever answered, nothing came that could have been an answer."""
    if case.answered or case.has_stray_reply or case.has_unread_answer:
        return None
    if not case.silent:
        return None
    silent = [server for server in case.servers if any(query.server == server for query in case.silent)]
    waited_ns = max(map(case.waited_ns, case.silent))
    evidence = [no_reply(case, server) for server in silent]
    errors_met = errors(case.lookup.queries)
    evidence += [*errors_met, *schedule(case)]
    if case.thread:
        evidence += [thread_waits(case.thread, case.elapsed_ns), *sockets(case.thread)]
    doubts = _doubts(case, silent)
    named = listing(map(server_text, silent))
    verb = ("have been", "were") if len(silent) > 1 else ("has been", "was")
    return Cause(
        "ns_silent",
        "likely" if doubts or errors_met or not _had_its_time(case) else "confirmed",
        f"No DNS server answers: {named} {verb[not case.is_open]} silent for {case.lasted(waited_ns)}.",
        (*evidence, *doubts),
        _remedy(case, silent[0]),
    )


def _had_its_time(case: LookupCase) -> bool:
    """Whether every server has let an attempt time out: before that the answer may just be slow."""
    given_up = {query.server for query in case.silent if case.was_given_up(query)}
    return given_up == {query.server for query in case.sent if case.is_open_question(query)}


def _doubts(case: LookupCase, silent: list[Server]) -> list[Evidence]:
    """What could not be excluded, each as evidence of its own."""
    doubts = [_local(server) for server in silent if is_local(server)]
    doubts += [*_not_asked(case), *fragments_incomplete(case)]
    if not case.hears_errors:
        text = (
            "not seen: whether anything listens on port 53; the kernel tells unconnected sockets, "
            "such as musl's, of no closed port"
        )
        doubts.append(Evidence("probe_missing", text, {"resolver": case.situation.resolver}))
    elif DROPS_UNSEEN in case.situation.missing:
        text = "not seen: whether an answer came from another address, which the kernel drops"
        doubts.append(Evidence("probe_missing", text))
    return doubts


def _local(server: Server) -> Evidence:
    return Evidence(
        "probe_missing",
        f"not seen: what the daemon behind {server_text(server)}, on this host, waits for itself",
        {"server": server.address},
    )


def _not_asked(case: LookupCase) -> list[Evidence]:
    """Servers that the resolver would still ask; unknown is as good as some."""
    later = case.not_asked_yet
    if case.lookup.status == "failed" or later == ():
        return []
    if later is None:
        return [Evidence("probe_missing", "not seen: whether resolv.conf names further servers")]
    named = listing(map(shown_text, later))
    return [Evidence("query_sent", f"{named} has not been asked yet", {"servers_not_asked": len(later)})]


def _remedy(case: LookupCase, server: Server) -> str:
    port = server.port
    if is_local(server):
        return f"Try: {dig(server, case.lookup)}; look at the daemon there: ss -lunp 'sport = :{port}'"
    return (
        f"Try: {dig(server, case.lookup)}. If that is silent too, repair the route or the firewall to port "
        f"{port}/udp, or replace the server in /etc/resolv.conf"
    )
