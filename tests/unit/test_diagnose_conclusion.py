"""What the last line of a lookup says of its cause, after what was said while it was stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from situations import EAI_AGAIN, both, situation, thread, udp

from ebpfdns.diagnose import conclusion

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation, StatusWord

SILENT = conclusion.while_open(situation(both(), age=0.6))
STOPPED = conclusion.while_open(situation(both(), age=0.6, thread=thread(udp(), state="T")))
UNKNOWN = conclusion.while_open(situation(both(reply=0.01), age=0.6))


def ended(status: StatusWord, age: float = 0.7, **more: Any) -> Situation:
    queries = both(reply=age - 0.01) if status == "ok" else both()
    return situation(queries, age=age, status=status, thread=None, **more)


def test_the_words_while_open() -> None:
    """The stories below begin with a silence, a stopped program, and with nothing that explains the wait."""
    assert [cause.id for cause in (SILENT, STOPPED, UNKNOWN)] == ["ns_silent", "target_stopped", "unknown"]


def test_a_broken_silence_is_no_cause() -> None:
    """A lookup whose answer came after all does not end with "no server answers"."""
    assert conclusion.at_the_end(ended("ok"), SILENT) is None


def test_a_slow_answer_is_what_remains() -> None:
    """When it took long, the end says so, in its own words."""
    cause = conclusion.at_the_end(ended("ok", 1.5), SILENT)
    assert cause is not None
    assert (cause.id, "worked" in cause.summary) == ("unknown", True)


def test_a_silence_that_lasted_is_the_cause() -> None:
    """What fails in silence ends with that cause, judged at the end."""
    cause = conclusion.at_the_end(ended("failed", 2.0, code=EAI_AGAIN["code"]), SILENT)
    assert cause is not None
    assert cause.id == "ns_silent"
    assert cause != SILENT


def test_a_silence_before_tracing_began_is_still_told() -> None:
    """Of a lookup older than the agent not all questions were seen: what was said of it stands."""
    assert conclusion.at_the_end(ended("ok", before_attach=True), SILENT) is SILENT


def test_what_only_the_thread_showed_is_told_again() -> None:
    """That the program was stopped cannot be seen at the end, and explains the time that it took."""
    assert conclusion.at_the_end(ended("ok"), STOPPED) is STOPPED
    assert conclusion.at_the_end(ended("ok", 1.5), STOPPED) is STOPPED


def test_what_a_daemon_was_seen_to_do_is_not_unlearned() -> None:
    """A stub whose questions lay unread is the cause at the end as surely as before, in words of the end."""
    stub = "127.0.0.53"
    listener = {"listeners": {stub: {"listening": True, "rx_queue_bytes": 768}}}
    sure = conclusion.while_open(situation(both(stub), age=1.5, thread=thread(udp(stub)), process=listener))
    end = {"age": 3.0, "status": "failed", "code": EAI_AGAIN["code"], "thread": None}
    cause = conclusion.at_the_end(situation(both(stub), **end), sure)
    assert cause is not None
    assert (sure.confidence, cause.confidence) == ("confirmed", "confirmed")
    assert [fact.fact for fact in cause.evidence] == ["no_reply", "peer_rx_queue_not_empty"]
    assert cause.evidence[0].numbers["waited_ms"] == 2999.0
    lost = conclusion.at_the_end(situation(both(stub), lost={"kernel_ring": 1}, **end), sure)
    assert lost is not None
    assert lost.confidence != "confirmed"


def test_not_knowing_is_not_carried_on() -> None:
    """Not to know is said at the end by the end itself, with its numbers, or not at all."""
    assert conclusion.at_the_end(ended("ok"), UNKNOWN) is None
    cause = conclusion.at_the_end(ended("ok", 1.5), UNKNOWN)
    assert cause is not None
    assert cause != UNKNOWN


def test_nothing_said_before() -> None:
    """Without a word before, the end's own stands."""
    assert conclusion.at_the_end(ended("ok"), None) is None


def test_fragments_that_were_seen_are_not_unlearned() -> None:
    """At its end nobody looks for them, and they are the reason still, or the doubt."""
    held = {"process": {"fragments": {"incomplete": 1, "failed": 0}}}
    lately = {"answers": {"192.0.2.53": {"plain_ns": 1, "edns_ns": None}}}
    for known in ({}, lately):
        last = conclusion.while_open(situation(both(), age=0.6, **held, **known))
        assert "fragments_incomplete" in [fact.fact for fact in last.evidence]
        assert conclusion.at_the_end(ended("failed", 2.0, code=EAI_AGAIN["code"]), last) is last
        assert conclusion.at_the_end(ended("ok"), last) is None
