"""Why: the first rule that matches, no surer than what was lost allows.

Owns: the order of the judgement, and who is healthy. Must not know: what any rule looks at.
Pure: the same situation always gives the same cause.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose import losses
from ebpfdns.diagnose.case import A_SECOND_NS, ConnectCase, LookupCase
from ebpfdns.diagnose.catalogue import CATALOGUE
from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.rules import child_process

if TYPE_CHECKING:
    from ebpfdns.diagnose.catalogue import Entry
    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Lookup, Situation

#: The name does not exist, or has no such record: EAI_NONAME and EAI_NODATA, HOST_NOT_FOUND and NO_DATA.
NO_SUCH_NAME = (-2, -5, 1, 4)
#: The caller asked for something impossible: EAI_BADFLAGS, _FAMILY, _SOCKTYPE, _SERVICE, _ADDRFAMILY.
BAD_CALL = (-1, -6, -7, -8, -9)
ANSWERS = (0, 3)  # NOERROR (without records), NXDOMAIN


def judge(situation: Situation) -> Cause | None:
    """The cause of the situation; None when all is plainly well."""
    connect = situation.connect
    if connect is not None and (situation.lookup is None or not connect.in_lookup):
        return _judge_connect(ConnectCase(situation, connect))
    if situation.lookup is not None:
        return _judge_lookup(LookupCase(situation, situation.lookup))
    return None


def _judge_lookup(case: LookupCase) -> Cause | None:
    for entry in CATALOGUE:
        if entry.rule is None or (entry.last_resort and _is_healthy(case)):
            continue
        if case.situation.parent is not None and entry.rule is not child_process.rule:
            continue  # of a process that is not traced nothing else is known
        cause = entry.rule(case)
        if cause is not None:
            return _as_sure_as_seen(cause, entry, case)
    return None


def _judge_connect(case: ConnectCase) -> Cause | None:
    for entry in CATALOGUE:
        cause = entry.connect_rule(case) if entry.connect_rule else None
        if cause is not None:
            return losses.weakened(cause, losses.losses_of(case.situation, None))
    return None


def _as_sure_as_seen(cause: Cause, entry: Entry, case: LookupCase) -> Cause:
    """What was not observed makes it less sure."""
    not_kept = losses.questions_not_kept(case.lookup) if entry.about_silence else None
    if entry.about_silence and not case.situation.wire:
        text = "not seen: DNS packets of this process, so that nobody answered is no fact"
        cause = cause.at_most("possible").with_evidence(Evidence("probe_missing", text))
    if entry.about_silence and case.lookup.before_attach and not case.was_silence_seen:
        text = "the lookup was under way when tracing began: what came before was not seen"
        cause = cause.at_most("likely").with_evidence(Evidence("attached_late", text))
    return losses.weakened(cause, losses.losses_of(case.situation, case.lookup), not_kept)


def _is_healthy(case: LookupCase) -> bool:
    """Whether a lookup that no rule has anything to say about needs no explanation."""
    lookup = case.lookup
    if case.is_open or case.elapsed_ns >= A_SECOND_NS:
        return False
    return lookup.status != "failed" or _is_an_answer(lookup) or _ended_early(lookup)


def _is_an_answer(lookup: Lookup) -> bool:
    """Whether the failure is what the servers said: no such name, or the call made no sense."""
    if lookup.code is not None:
        return lookup.code in NO_SUCH_NAME + BAD_CALL
    return bool(lookup.queries) and all(query.rcode in ANSWERS for query in lookup.queries)


def _ended_early(lookup: Lookup) -> bool:
    """Whether a program that speaks DNS itself closed its socket before an answer could be expected."""
    return lookup.is_wire and lookup.socket_closed
