"""What a line says of the cause: of an open thing always something, of an ended one the more telling word.

Owns: the choice between what is judged now and what was said before. Must not know: rules, lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def while_open(situation: Situation) -> Cause:
    """Why it waits."""
    return judge(situation) or UNEXPLAINED


def at_the_end(situation: Situation, last: Cause | None) -> Cause | None:
    """Why it took so long or failed; `last` is what was said of it while it was stuck.

    That is told again where the end alone says nothing.
    """
    found = judge(situation)
    return last if last is not None and (found is None or found.id == "unknown") else found
