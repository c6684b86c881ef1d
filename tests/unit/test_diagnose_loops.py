"""Answers that nobody reads, and programs that cannot run: what must have been seen for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from situations import EAI_AGAIN, ONE, TWO, S, ask, at, rows, situation, thread, udp, verdict

from ebpfdns.diagnose import conclusion
from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Wait

if TYPE_CHECKING:
    from ebpfdns.model.facts import Situation

QUEUE = {"udp:40001": {"fd": 5, "inode": 1, "rx_queue_bytes": 832}}
EMPTY = {"udp:40001": {"fd": 5, "inode": 1, "rx_queue_bytes": 0}}
BUSY = thread(state="R", syscall="running")
NOT_READ = ("reply_not_read", "confirmed")
CPU = {"quota_us": 5000, "period_us": 100_000, "throttled_ms": 400.0, "interval_ms": 500.0}


def answered(reply: float = 0.1, **fields: Any) -> Any:
    return ask(reply=reply, **{"local_port": 40001, **fields})


def unread(**more: Any) -> Situation:
    """An answer that has lain there since 0.1 s, and a thread that is busy."""
    return situation([answered()], **{"queues": QUEUE, "thread": BUSY, **more})


def wire(**more: Any) -> Situation:
    """The same, by a program with its own resolver, whose loop is away."""
    away = Wait(None, loop="epoll", last_loop_fd=4, loop_return_ns=at(0.0), pid=10, tid=11)
    return unread(**{"api": "wire", "answer_unread": True, "resolver": "unknown", "wait": away, **more})


@rows(
    ("busy", unread(), *NOT_READ),
    ("in a lock", unread(thread=thread(syscall="futex")), *NOT_READ),
    ("in its own loop's callback", wire(thread=thread(syscall="futex")), *NOT_READ),
    ("a moment ago", unread(age=0.3), "unknown", "possible"),
    ("the queue is empty", unread(queues=EMPTY), "unknown", "possible"),
    ("the queue cannot be seen", unread(queues={}), "unknown", "possible"),
    ("seen by the kernel only", wire(queues={}), "reply_not_read", "likely"),
    ("the thread cannot be seen", wire(thread=None), "reply_not_read", "likely"),
    ("something came that fits no question", unread(wrong_ids=1), "reply_not_read", "likely"),
    ("events were lost", unread(lost={"kernel_ring": 3}), "reply_not_read", "likely"),
    ("stopped", unread(thread=thread(state="T", syscall=None)), "target_stopped", "confirmed"),
    ("frozen", unread(thread=thread(state="D"), process={"frozen": True}), "target_stopped", "confirmed"),
    ("out of CPU time", unread(process={"cpu": CPU}), "target_stopped", "confirmed"),
    (
        "a limit, not known to be met",
        unread(process={"cpu": CPU | {"throttled_ms": None}}),
        "reply_not_read",
        "likely",
    ),
    ("a limit that is seldom met", unread(process={"cpu": CPU | {"throttled_ms": 100.0}}), *NOT_READ),
    ("no limit", unread(process={"cpu": None, "frozen": False}), *NOT_READ),
)
def test_an_answer_that_is_not_read(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """Confirmed is what was seen from the packet to the queue and the thread; who cannot run comes first."""
    assert verdict(seen) == expected


@rows(
    ("its other server", thread(udp(TWO)), "late_reply"),
    ("the socket itself", thread({**udp(None), "fd": 5}), "late_reply"),
    ("elsewhere", thread(syscall="futex"), "reply_not_read"),
)
def test_who_waits_for_an_answer_reads(seen: dict[str, Any], expected: tuple[str | None, str | None]) -> None:
    """Glibc asks its second server while the first one's answer comes, late: it lies there on purpose."""
    late = answered(2.0, sent=0.001)
    queries = [late, ask(TWO, sent=1.1, local_port=40002)]
    found = judge(situation(queries, age=2.5, queues=QUEUE, thread=seen))
    assert found is not None
    assert found.id == expected[0]


def test_the_evidence_names_the_thread_and_its_loop() -> None:
    """Who, what instead, for how long, in which descriptor."""
    cause = judge(wire(age=3.2, thread=thread(syscall="futex")))
    assert cause is not None
    told = {entry.fact: entry.numbers for entry in cause.evidence}
    assert told["rx_queue_not_empty"] == {"fd": 5, "rx_queue_bytes": 832, "unread_ms": 3100.0}
    assert told["blocked_in_syscall"] == {"thread": 11, "state": "S", "syscall": "futex"}
    assert told["event_loop_away"] == {"thread": 11, "kind": "epoll", "fd": 4, "away_ms": 3200.0}
    assert "for 3.1 s" in cause.summary
    assert "thread 11 sits in futex" in cause.summary


@pytest.mark.parametrize("age", [0.34, 0.36, 5.0])
def test_the_end_tells_how_long_it_lay_there(age: float) -> None:
    """A loop that came back at last has read it then; that was seen, what the thread did was not."""
    cause = judge(wire(age=age, status="ok", thread=None, queues={}))
    if age < 0.35:
        assert cause is None
    else:
        assert cause is not None
        assert (cause.id, cause.confidence) == ("reply_not_read", "likely")
        assert cause.evidence[-1].numbers["away_ms"] == round((age - 0.1) * 1000, 3)


def test_the_end_is_as_sure_as_the_look() -> None:
    """What was confirmed while it lay there stays so, and a program that was stopped does not become busy."""
    end = wire(age=2.0, status="ok", thread=None, queues={})
    for seen in (wire(), wire(thread=thread(state="T", syscall=None))):
        before = conclusion.while_open(seen)
        after = conclusion.at_the_end(end, before)
        assert after is not None
        assert (after.id, after.confidence) == (before.id, "confirmed")


def test_out_of_cpu_time_only_who_wants_to_run() -> None:
    """A thread that waits is not kept by the limit, however often its cgroup meets it."""
    silent = situation([ask()], process={"cpu": CPU}, age=1.0)
    assert verdict(silent)[0] == "ns_silent"
    failed = situation([ask(ONE)], age=2.0, process={"cpu": CPU}, **EAI_AGAIN)
    assert verdict(failed)[0] == "ns_silent"


def test_a_wait_tells_how_long_its_thread_is_away() -> None:
    """From the last return; nothing of a thread without a loop, or in it."""
    assert Wait(None, loop="poll", loop_return_ns=3 * S).away_ns(5 * S) == 2 * S
    assert Wait(None).away_ns(5 * S) is None
    assert Wait("poll", 4 * S, loop="poll", loop_return_ns=3 * S, is_in_loop=True).away_ns(5 * S) is None
