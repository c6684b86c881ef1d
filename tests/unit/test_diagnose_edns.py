"""`edns_dropped`: what must have been answered lately, and by whom, before a silence is told as that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from situations import AAAA, ONE, TWO, A, ask, at, both, conf, rows, situation, verdict

from ebpfdns.diagnose.judge import judge

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation


def edns(**more: Any) -> Situation:
    """Both questions with OPT records, unanswered for two seconds."""
    return situation(both(has_edns=True), age=2.0, **more)


def answers(plain: float | None = None, with_opt: float | None = None, server: str = ONE) -> dict[str, Any]:
    """When the server answered which kind of question; the seconds are the lookup's."""
    times = {
        "plain_ns": None if plain is None else at(plain),
        "edns_ns": None if with_opt is None else at(with_opt),
    }
    return {"answers": {server: times}}


@rows(
    ("a plain one answered meanwhile", edns(**answers(1.0)), "edns_dropped", "confirmed"),
    ("a plain one answered before", edns(**answers(-10.0)), "edns_dropped", "likely"),
    (
        "in this very lookup",
        situation([ask(has_edns=True), ask(reply=1.01, sent=1.0)], age=2.0),
        "edns_dropped",
        "confirmed",
    ),
    ("too long ago", edns(**answers(-70.0)), "ns_silent", "likely"),
    ("with OPT, too", edns(**answers(1.0, -10.0)), "ns_silent", "likely"),
    ("with OPT long ago", edns(**answers(1.0, -100.0)), "edns_dropped", "confirmed"),
    ("another server answered", edns(**answers(1.0, server=TWO)), "ns_silent", "likely"),
    ("nothing is known", edns(), "ns_silent", "likely"),
    ("plain ones wait, too", situation(both(), age=2.0, **answers(1.0)), "ns_silent", "likely"),
    (
        "one of the two is plain",
        situation([ask(has_edns=True), ask(qtype=AAAA)], age=2.0, **answers(1.0)),
        "ns_silent",
        "likely",
    ),
    ("something strange came", edns(wrong_ids=1, **answers(1.0)), "reply_ignored", "confirmed"),
    ("something was lost", edns(lost={"kernel_ring": 1}, **answers(1.0)), "edns_dropped", "likely"),
    ("packets are not seen", edns(wire=False, **answers(1.0)), "edns_dropped", "possible"),
)
def test_edns_dropped(seen: Situation, expected: tuple[str, str]) -> None:
    """Only questions with OPT wait, and the same server answered one without it in the last minute."""
    assert verdict(seen) == expected


@pytest.mark.parametrize("type_answered", [A, AAAA])
def test_a_lost_reply_is_no_dropped_edns(type_answered: int) -> None:
    """With OPT records on both questions, an answer to one of them says that EDNS passes."""
    other = AAAA if type_answered == A else A
    questions = [ask(qtype=type_answered, reply=0.01, has_edns=True), ask(qtype=other, has_edns=True)]
    seen = situation(questions, age=2.0, resolv_conf=conf(ONE), **answers(0.5))
    assert verdict(seen)[0] == "one_reply_lost"


def test_what_passes_is_told() -> None:
    """The evidence says what waits, what was answered and when."""
    cause = judge(edns(**answers(-10.0)))
    assert cause is not None
    assert [told.fact for told in cause.evidence] == ["edns_unanswered", "small_answers_pass", "no_reply"]
    assert cause.evidence[1].numbers["answered_before_ms"] == 12_000.0


def held(count: int, questions: Any = None, **more: Any) -> Situation:
    """Unanswered for two seconds, while packets lie there of which fragments are missing."""
    process = {"fragments": {"incomplete": count, "failed": 3}}
    asked = both() if questions is None else questions
    return situation(asked, age=2.0, process=process, resolv_conf=conf(ONE), **more)


@rows(
    ("it answered lately", held(1, **answers(-10.0)), "edns_dropped", "likely"),
    ("it answered with OPT lately", held(1, **answers(with_opt=-10.0)), "edns_dropped", "likely"),
    ("it answered long ago", held(1, **answers(-70.0)), "ns_silent", "likely"),
    ("another server answered", held(1, **answers(-10.0, server=TWO)), "ns_silent", "likely"),
    ("nothing is held", held(0, **answers(-10.0)), "ns_silent", "likely"),
    ("it may be a wrong answer", held(1, wrong_ids=1, **answers(-10.0)), "reply_ignored", "confirmed"),
    ("one of two is answered", held(1, [ask(reply=0.01), ask(qtype=AAAA)]), "one_reply_lost", "likely"),
    ("something was lost", held(1, lost={"kernel_ring": 1}, **answers(-10.0)), "edns_dropped", "possible"),
)
def test_fragments_that_are_missing(seen: Situation, expected: tuple[str, str]) -> None:
    """They explain the silence of a server that did answer; whose they are is never sure."""
    assert verdict(seen) == expected


def test_fragments_are_a_doubt() -> None:
    """Where the server never answered they are told, and its silence is not sure."""
    cause = judge(held(2))
    assert cause is not None
    assert cause.evidence[-1].fact == "fragments_incomplete"
    assert cause.evidence[-1].numbers == {"incomplete": 2, "failed_before": 3}
    assert "2 packets lie" in cause.evidence[-1].text
