"""`reply_not_read`: the answer is already here, in the socket's receive queue; the program does not read it.

Owns: what must have been seen, and the words for it. Must not know: other causes.

A reply is seen when it arrives, so "it arrived then, and something lies in that socket now" says that the
latest one was not read. A thread that waits on a DNS socket does read, if only another server's answer first.
A goroutine has no thread that waits for it: that it is not run follows from the queue, and why from what the
process's threads run instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.goroutines import busy, running_threads
from ebpfdns.diagnose.observations import reply_seen
from ebpfdns.diagnose.wording import milliseconds, seconds, server_text, shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Query

UNREAD_AFTER_NS = 250_000_000
#: calls in which a thread sleeps because it was told to
SLEEPS = ("nanosleep", "clock_nanosleep", "pause")


def rule(case: LookupCase) -> Cause | None:
    """An answer has lain in a socket of this lookup for a while, and its thread is elsewhere."""
    if not case.is_open:
        return _at_the_end(case)
    unread = _unread(case)
    if unread is None or _waits_for_answers(case):
        return None
    unread_ns = case.at_ns - (unread.reply_ns or 0)
    queue = _queue(case, unread)
    is_seen = bool(queue) and _is_away(case) and case.lookup.unexpected_replies == 0
    is_seen = is_seen and _is_cpu_known(case)
    elsewhere = _elsewhere(case)
    return Cause(
        "reply_not_read",
        "confirmed" if is_seen else "likely",
        f"The answer has been here for {seconds(unread_ns)}, and the program does not read it: {elsewhere}.",
        (
            reply_seen(case, unread),
            *_queue_evidence(unread, queue, unread_ns),
            *_thread_evidence(case, elsewhere),
            *_loop_evidence(case),
            *_cpu_evidence(case),
        ),
        _remedy(case),
    )


def _is_away(case: LookupCase) -> bool:
    """Whether it was seen that something else is done than reading."""
    return bool(running_threads(case)) if case.lookup.is_of_go else case.thread is not None


def _at_the_end(case: LookupCase) -> Cause | None:
    """The thread came back to its event loop long after the answer; what it did meanwhile was not seen."""
    last = _last_answer(case)
    if last is None:
        return None
    unread_ns = case.at_ns - (last.reply_ns or 0)
    if unread_ns < UNREAD_AFTER_NS:
        return None
    if case.lookup.is_of_go:
        return _goroutine_at_the_end(case, last, unread_ns)
    if not case.lookup.answer_unread:
        return None
    text = f"its thread came back to its event loop {seconds(unread_ns)} after the answer"
    numbers: Numbers = {"thread": case.lookup.tid, "away_ms": milliseconds(unread_ns)}
    return Cause(
        "reply_not_read",
        "likely",
        f"The answer lay unread for {seconds(unread_ns)}: the program had not come back to its event loop.",
        (reply_seen(case, last), Evidence("event_loop_away", text, numbers)),
        _remedy(case),
    )


def _goroutine_at_the_end(case: LookupCase, last: Query, unread_ns: int) -> Cause | None:
    """It went on long after all was answered, though Go's resolver does nothing more with an answer."""
    if len(case.answered) != len(case.lookup.queries) or case.lookup.status != "ok":
        return None
    text = f"the lookup went on for {seconds(unread_ns)} after the last answer had come"
    return Cause(
        "reply_not_read",
        "likely",
        f"The answer lay unread for {seconds(unread_ns)}: its goroutine was not run.",
        (reply_seen(case, last), Evidence("event_loop_away", text, {"away_ms": milliseconds(unread_ns)})),
        _remedy(case),
    )


# What lies where.


def _last_answer(case: LookupCase) -> Query | None:
    """The answer that came last."""
    return max(case.answered, key=lambda query: query.reply_ns or 0, default=None)


def _queue(case: LookupCase, query: Query) -> dict[str, int] | None:
    """What is known of the socket that a question was asked from."""
    return case.situation.queues.get(f"{query.transport}:{query.local_port}")


def _unread(case: LookupCase) -> Query | None:
    """The answer that certainly lies there, long enough to be worth a word: the last of its socket."""
    last = _last_answer(case)
    if last is not None and case.lookup.answer_unread and _queue(case, last) is None:
        return last if _is_old(case, last) else None  # the kernel saw that nobody came for it
    for query in sorted(case.answered, key=lambda one: one.reply_ns or 0, reverse=True):
        queue = _queue(case, query)
        of_socket = [other for other in case.answered if other.local_port == query.local_port]
        is_last = all((other.reply_ns or 0) <= (query.reply_ns or 0) for other in of_socket)
        if queue and queue["rx_queue_bytes"] and is_last and _is_old(case, query):
            return query
    return None


def _is_old(case: LookupCase, query: Query) -> bool:
    return case.at_ns - (query.reply_ns or 0) >= UNREAD_AFTER_NS


def _waits_for_answers(case: LookupCase) -> bool:
    """Whether the thread sits in a wait on a DNS socket: then it is at work, and knows what it waits for."""
    if case.thread is None or case.thread.is_running:
        return False
    own = {facts["fd"] for facts in case.situation.queues.values()}
    return any(waited.is_dns or waited.fd in own for waited in case.thread.sockets)


# The words.


def _elsewhere(case: LookupCase) -> str:
    """What the thread does instead."""
    thread, tid = case.thread, case.lookup.tid
    if case.lookup.is_of_go:
        return "its goroutine is not run" + (f", while {told.text}" if (told := busy(case)) else "")
    if thread is None:
        return f"its thread {tid} has not come back to read it"
    if thread.is_running:
        return f"its thread {tid} is running other code"
    if thread.syscall is None:
        return f"its thread {tid} is blocked (state {thread.state})"
    if thread.syscall in SLEEPS:
        return f"its thread {tid} sleeps, in {thread.syscall}"
    return f"its thread {tid} sits in {shown_text(thread.syscall)}"


def _queue_evidence(query: Query, queue: dict[str, int] | None, unread_ns: int) -> tuple[Evidence, ...]:
    if queue is None:
        return ()
    size, fd = queue["rx_queue_bytes"], queue["fd"]
    text = f"the answer of {server_text(query.server)} lies unread in fd {fd}, for {seconds(unread_ns)}"
    numbers: Numbers = {"fd": fd, "rx_queue_bytes": size, "unread_ms": milliseconds(unread_ns)}
    return (Evidence("rx_queue_not_empty", text, numbers),)


def _thread_evidence(case: LookupCase, elsewhere: str) -> tuple[Evidence, ...]:
    thread = case.thread
    if case.lookup.is_of_go:
        told = busy(case)
        return () if told is None else (told,)
    if thread is None:
        return (Evidence("probe_missing", "not seen: what the thread does instead"),)
    syscall = None if thread.is_running else thread.syscall
    numbers: Numbers = {"thread": case.lookup.tid, "state": thread.state, "syscall": syscall}
    fact = "thread_running_elsewhere" if thread.is_running else "blocked_in_syscall"
    return (Evidence(fact, elsewhere, numbers),)


def _loop_evidence(case: LookupCase) -> tuple[Evidence, ...]:
    """For how long the thread has been away from its event loop."""
    wait = case.situation.wait
    away_ns = None if wait is None else wait.away_ns(case.at_ns)
    if wait is None or away_ns is None:
        return ()
    what = f"{wait.loop}, fd {wait.last_loop_fd}" if wait.loop == "epoll" else str(wait.loop)
    text = f"the thread has not come back to its event loop ({what}) for {seconds(away_ns)}"
    numbers: Numbers = {
        "thread": case.lookup.tid,
        "kind": wait.loop,
        "fd": wait.last_loop_fd,
        "away_ms": milliseconds(away_ns),
    }
    return (Evidence("event_loop_away", text, numbers),)


def _is_cpu_known(case: LookupCase) -> bool:
    """Whether a CPU limit, if there is one, is known not to be what keeps the thread from reading."""
    cpu = (case.situation.process or {}).get("cpu") or {}
    return not cpu.get("quota_us") or cpu.get("throttled_ms") is not None


def _cpu_evidence(case: LookupCase) -> tuple[Evidence, ...]:
    """That its cgroup was out of CPU time, for a part of the time that does not explain it all."""
    cpu = (case.situation.process or {}).get("cpu") or {}
    throttled_ms, interval_ms = cpu.get("throttled_ms"), cpu.get("interval_ms")
    if not throttled_ms or not interval_ms:
        return ()
    text = f"its cgroup was out of CPU time for {throttled_ms:.0f} of {interval_ms:.0f} ms"
    return (Evidence("cpu_throttled", text, {"throttled_ms": throttled_ms, "interval_ms": interval_ms}),)


def _remedy(case: LookupCase) -> str:
    pid = case.lookup.pid
    if case.lookup.is_of_go:
        return (
            f"See what runs instead: perf top -p {pid}, or kill -QUIT {pid}, which ends it and prints all "
            "stacks; break up what computes for long; raise GOMAXPROCS or the CPU limit"
        )
    look = f"gdb -p {pid} -batch -ex 'thread apply all bt'"
    if case.lookup.is_wire:
        return f"Move the work that keeps the thread out of its event loop; see what it is: {look}"
    return f"See what the thread does instead of reading: {look}"
