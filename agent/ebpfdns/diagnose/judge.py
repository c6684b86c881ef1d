"""Why: the first rule that matches, no surer than what was lost allows.

Owns: the order of the judgement, and who is healthy. Must not know: what any rule looks at.
Pure: the same situation always gives the same cause.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfdns.diagnose import losses
from ebpfdns.diagnose.case import A_SECOND_NS, ConnectCase, LookupCase
from ebpfdns.diagnose.catalogue import CATALOGUE
from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.rules import child_process
from ebpfdns.diagnose.wording import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ebpfdns.diagnose.catalogue import Entry, Rule
    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Lookup, Situation

#: The name does not exist, or has no such record: EAI_NONAME and EAI_NODATA, HOST_NOT_FOUND and NO_DATA.
NO_SUCH_NAME = (-2, -5, 1, 4)
#: The caller asked for something impossible: EAI_BADFLAGS, _FAMILY, _SOCKTYPE, _SERVICE, _ADDRFAMILY.
BAD_CALL = (-1, -6, -7, -8, -9)
ANSWERS = (0, 3)  # NOERROR (without records), NXDOMAIN


def _rules(is_meant: Callable[[Entry], bool]) -> tuple[tuple[Rule, Entry], ...]:
    return tuple((entry.rule, entry) for entry in CATALOGUE if entry.rule is not None and is_meant(entry))


#: Parts of the catalogue, in its order.
ORDINARY = _rules(lambda entry: not entry.last_resort)
LAST_RESORTS = _rules(lambda entry: entry.last_resort)
ABOUT_SILENCE = _rules(lambda entry: entry.about_silence)
OF_CHILDREN = _rules(lambda entry: entry.rule is child_process.rule)
#: cause → rules that may say why it is so
EXPLAINING: dict[str, list[Rule]] = {}
for _rule, _entry in _rules(lambda entry: bool(entry.explains)):
    for _id in _entry.explains:
        EXPLAINING.setdefault(_id, []).append(_rule)


def judge(situation: Situation) -> Cause | None:
    """The cause of the situation; None when all is plainly well."""
    connect = situation.connect
    if connect is not None and (situation.lookup is None or not connect.in_lookup):
        return _judge_connect(ConnectCase(situation, connect))
    if situation.lookup is not None:
        return _judge_lookup(LookupCase(situation, situation.lookup))
    return None


def _judge_lookup(case: LookupCase) -> Cause | None:
    if case.situation.parent is not None:  # of a process that is not traced nothing else is known
        return _first(case, OF_CHILDREN)
    found = _first(case, ORDINARY) or _of_the_step_that_hangs(case)
    if found is not None or _is_healthy(case):
        return found
    return _first(case, LAST_RESORTS)


def _first(case: LookupCase, rules: Iterable[tuple[Rule, Entry]]) -> Cause | None:
    for rule, entry in rules:
        cause = rule(case)
        if cause is not None:
            return _explained(_as_sure_as_seen(cause, entry, case), case)
    return None


def _of_the_step_that_hangs(case: LookupCase) -> Cause | None:
    """Of a name that is searched for, and hangs at one of its suffixes: the cause is that step's."""
    silent = {query.name for query in case.silent}
    others = [query for query in case.sent if query.name not in (*silent, None)]
    if len(silent) != 1 or None in silent or not others:
        return None
    queries = tuple(query for query in case.lookup.queries if query.name in (*silent, None))
    begins_ns = min(query.sent_ns for query in queries)
    ends_ns = begins_ns + max(map(case.waited_ns, case.silent))
    # One after the other, as a search goes, and each but this one answered.
    if any(
        q.reply_ns is None or (q.reply_ns > begins_ns and q.sent_ns < begins_ns + A_SECOND_NS) for q in others
    ):
        return None
    if ends_ns - begins_ns < A_SECOND_NS:
        return None
    lookup = replace(case.lookup, queries=queries)
    step = LookupCase(replace(case.situation, lookup=lookup), lookup)
    cause = _first(step, ABOUT_SILENCE)
    if cause is None:
        return None
    (name,) = silent
    text = f"other names of its search were answered; {shown(name or b'')} is the one that was not"
    names = len({query.name for query in others}) + 1
    return cause.at_most("likely").with_evidence(Evidence("search_step", text, {"names": names}))


def _explained(cause: Cause, case: LookupCase) -> Cause:
    """Why it is so, where the configuration says that: then what was found is the evidence of it.

    Only when that is sure; otherwise what speaks for it is told beside.
    """
    for rule in EXPLAINING.get(cause.id, ()):
        reason = rule(case)
        if reason is None:
            continue
        if reason.confidence == "confirmed":
            if any(told.fact == "events_lost" for told in cause.evidence):
                reason = reason.at_most(cause.confidence)
            return reason.with_evidence(*cause.evidence)
        return cause.with_evidence(*reason.evidence)
    return cause


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
