"""What a line says of the cause: of an open thing always something, of an ended one the more telling word.

Owns: the choice between what is judged now and what was said before. Must not know: rules, lines.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ebpfdns.diagnose.catalogue import CATALOGUE
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.judge import judge

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation

#: When no rule, not even `unknown`, has a word for an open thing.
UNEXPLAINED = Cause(
    id="unknown",
    confidence="possible",
    summary="It waits, and what was observed does not say why.",
    evidence=(Evidence("blocked_in_syscall", "it has not ended", {}),),
    remedy="ebpfdns doctor",
)


#: What these say of a lookup follows from its questions, and the end has seen all of them.
KNOWN_BETTER = frozenset(entry.id for entry in CATALOGUE if entry.about_silence or entry.last_resort)
#: What these say at the end lacks the look at the thread: what was said before is as true.
LESS_KNOWN = frozenset({"reply_not_read"})


#: What a daemon that was asked waited for: what it says in the end follows from that.
BEHIND = frozenset(
    {"resolved_dot_blocked", "resolved_degraded", "resolved_upstream_silent", "forwarder_upstream_silent"}
)
#: What it says then: an error, or an answer that nobody waits for any more.
SAID_IN_THE_END = frozenset({"rcode_retry", "late_reply"})
#: What a look at the other end of a wait has shown, and its end does not refute.
LOOKED_AT = ("peer_stopped", "peer_rx_queue_not_empty", "listener_backlog_full")

#: What a look has shown of a silence while it lasted: at its end it is the reason still.
SHOWN_ONCE = frozenset({"fragments_incomplete"})


def while_open(situation: Situation) -> Cause:
    """Why it waits."""
    return judge(situation) or UNEXPLAINED


def at_the_end(situation: Situation, last: Cause | None) -> Cause | None:
    """Why it took so long or failed; `last` is what was said of it while it was stuck.

    That is told again where the end alone says nothing, unless it refutes it (a broken silence).
    """
    found = judge(situation)
    if last is not None and found is not None and last.id in BEHIND and found.id in SAID_IN_THE_END:
        found = replace(last, evidence=(*last.evidence, *found.evidence))
    if last is not None and situation.connect is not None:
        # What surrounds a connect is looked at only while it is open.
        return found if found is not None and found.id == last.id else last
    lookup = situation.lookup
    if last is not None and lookup is not None and lookup.status == "unseen":
        # That it was answered in the end was not seen, so an end without an answer is no news.
        return last if found is None or found.id in KNOWN_BETTER else found
    if last is not None and found is not None:
        is_shown = _is_shown_by(last, found)
        if found.id == last.id and not situation.lost and not is_shown:
            return _with_proofs(found, last)
        if is_shown or (found.id in LESS_KNOWN and last.id not in KNOWN_BETTER):
            return last
    if last is None or (found is not None and found.id != "unknown"):
        return found
    return found if _is_outdated(last, situation) else last


def _is_shown_by(last: Cause, found: Cause) -> bool:
    """Whether it ends in the silence of which a look has shown more."""
    return found.id in ("ns_silent", last.id) and any(fact.fact in SHOWN_ONCE for fact in last.evidence)


def _with_proofs(found: Cause, last: Cause) -> Cause:
    """The same cause at the end, as sure as it was when its other end was looked at."""
    proofs = [fact for fact in last.evidence if fact.fact in LOOKED_AT]
    if not proofs:
        return found if last.id in KNOWN_BETTER else found.at_least(last.confidence)
    seen = [fact for fact in found.evidence if fact.fact not in ("probe_missing", *LOOKED_AT)]
    return replace(found.at_least(last.confidence), evidence=(*seen, *proofs), remedy=last.remedy)


def _is_outdated(last: Cause, situation: Situation) -> bool:
    """Whether it would be said again if it still held."""
    lookup = situation.lookup
    return last.id in KNOWN_BETTER and lookup is not None and not lookup.before_attach
