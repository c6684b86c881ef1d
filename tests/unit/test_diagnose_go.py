"""Lookups of goroutines: those that wait for another one, for a place in libc, or to be run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from situations import NAME, ONE, START_NS, TWO, S, ask, both, conf, rows, situation, verdict

from ebpfdns.diagnose.judge import judge
from ebpfdns.model.facts import Lookup, Other, Query, Situation

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT, COALESCED, UNREAD = "go_cgo_thread_limit", "coalesced_wait", "reply_not_read"
STALE, SILENT = "stale_resolv_conf", "ns_silent"
RUNS, SLEEPS = {"tid": 21, "state": "R", "syscall": "running"}, {"tid": 22, "state": "S", "syscall": "futex"}


def goroutine(*asked: Query, queries: Sequence[Query] = (), **more: Any) -> Situation:
    """A lookup of goroutine 7; no thread waits for it."""
    about = {"api": "go", "tid": 0, "goroutine_id": 7, "resolver": "go", "thread": None}
    return situation([*asked, *queries], **{**about, **more})


def other(*queries: Query, goroutine: int = 5, cause: str = SILENT, **fields: Any) -> Other:
    """Another goroutine's lookup of the same name, a second older."""
    about: dict[str, Any] = {"api": "go", "name": NAME, "start_ns": START_NS - S, "status": "in_flight"}
    about |= {"tid": 0, "goroutine_id": goroutine}
    lookup = Lookup(key=8, pid=10, host_pid=10, queries=queries, **{**about, **fields})
    return Other("10-1", lookup, cause, "No DNS server answers.")


def behind(*others: Other, **more: Any) -> Situation:
    """A lookup that has asked nobody."""
    return goroutine(**{"others": others, **more})


@rows(
    ("the older one asks", behind(other(ask())), COALESCED, "confirmed"),
    ("it asks through libc", behind(other(ask(), api="cgo", tid=12), api="go"), COALESCED, "confirmed"),
    ("the older one has asked nobody yet", behind(other(cause=LIMIT)), COALESCED, "likely"),
    ("another name", behind(other(ask(), name=b"web.lab.test")), "unknown", "possible"),
    ("Go tells letters of either case apart", behind(other(ask(), name=NAME.upper())), "unknown", "possible"),
    ("the first that waits, too, is not who asks", behind(other(), other(ask())), COALESCED, "confirmed"),
    ("they began together", behind(other(ask(), start_ns=START_NS + S // 50)), COALESCED, "confirmed"),
    ("a younger one", behind(other(ask(), start_ns=START_NS + S // 2)), "unknown", "possible"),
    ("together, and none asks", behind(other(start_ns=START_NS + 1)), "unknown", "possible"),
    ("it has ended", behind(other(ask(), status="failed", end_ns=START_NS)), "unknown", "possible"),
    (
        "a thread's, of C code",
        behind(other(ask(), api="getaddrinfo", goroutine_id=None, tid=12)),
        "unknown",
        "possible",
    ),
    ("nobody else", behind(), "unknown", "possible"),
    ("it asks itself", behind(other(ask()), queries=both()), SILENT, "likely"),
)
def test_coalesced_wait(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """A goroutine waits for the older lookup of the very same name, and for no other."""
    assert verdict(seen) == expected


def test_the_leader_is_named() -> None:
    """The evidence has the leader's id, goroutine and cause, and no thread that there is not."""
    cause = judge(behind(other(ask())))
    assert cause is not None
    leader, silent = cause.evidence
    assert (leader.fact, silent.fact) == ("leader_lookup", "query_sent")
    told = {key: leader.numbers[key] for key in ("lookup", "goroutine", "cause", "queries")}
    assert told == {"lookup": "10-1", "goroutine": 5, "cause": SILENT, "queries": 1}
    assert "thread" not in leader.numbers
    assert leader.text.startswith("goroutine 5 has been in a lookup of www.lab.test for 2.0 s")


def full(calls: int | None, nofile: int | None = 40, *others: Other, **more: Any) -> Situation:
    """A lookup that has asked nobody, in a process with so many calls of libc and such a limit."""
    process = {"limits": {"nofile": nofile}}
    return goroutine(**{"libc_calls": calls, "process": process, "others": others, **more})


OF_OTHER_NAME = other(ask(), api="cgo", tid=12, name=b"web.lab.test")


@rows(
    ("30 of 40 descriptors are kept", full(10), LIMIT, "confirmed"),
    ("one place is free", full(9), "unknown", "possible"),
    ("more than Go permits: other code is in libc, too", full(11), LIMIT, "likely"),
    ("too early", full(10, age=0.5), LIMIT, "likely"),
    ("a limit of 30 is one of 30 calls", full(30, 30), LIMIT, "confirmed"),
    ("one of 31 leaves one", full(1, 31), LIMIT, "confirmed"),
    ("500 leave 470", full(470, 500), LIMIT, "confirmed"),
    ("501 leave 500", full(499, 501), "unknown", "possible"),
    ("no limit: 500", full(500, None), LIMIT, "confirmed"),
    ("they were not counted", full(None), "unknown", "possible"),
    ("the limit was not read", full(10, process=None), "unknown", "possible"),
    ("its own call has begun", full(10, api="cgo", tid=12), "unknown", "possible"),
    ("it asks", full(10, queries=both()), SILENT, "likely"),
    ("an older one has its name", full(10, 40, other(ask(), api="cgo", tid=12)), COALESCED, "confirmed"),
    ("others have other names", full(10, 40, OF_OTHER_NAME), LIMIT, "confirmed"),
)
def test_go_cgo_thread_limit(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The limit is the one of net.concurrentThreadsLimit, and it is said when it is reached."""
    assert verdict(seen) == expected


def test_the_holders_are_named() -> None:
    """The evidence has both numbers, what they follow from, and who holds the places."""
    cause = judge(full(10, 40, OF_OTHER_NAME))
    assert cause is not None
    assert [told.fact for told in cause.evidence] == ["thread_limit_reached", "query_sent", "leader_lookup"]
    assert cause.evidence[0].numbers == {"lookups": 10, "limit": 10, "limit_nofile": 40}
    assert "10-1" in cause.remedy
    assert "ulimit -n" in cause.remedy


def test_a_high_limit_is_not_to_be_raised() -> None:
    """Where Go's own 500 is what is reached, the limit of descriptors is not blamed."""
    cause = judge(full(500, None))
    assert cause is not None
    assert "ulimit" not in cause.remedy


ANSWERED = ask(sent=0.001, reply=0.1, local_port=40001, attempt="running")
WAITING = ask(sent=0.001, qtype=28, attempt="running", local_port=40002)
QUEUE = {"udp:40001": {"fd": 7, "rx_queue_bytes": 90}}


def unread(*queries: Query, threads: tuple[dict[str, Any], ...] = (RUNS, SLEEPS), **more: Any) -> Situation:
    """An answer lies in a socket of a goroutine's lookup."""
    process = {"threads": list(threads), "threads_total": 5}
    return goroutine(*(queries or (ANSWERED,)), **{"queues": QUEUE, "process": process, **more})


@rows(
    ("a thread runs other code", unread(), UNREAD, "confirmed"),
    ("so do all", unread(threads=(RUNS, RUNS)), UNREAD, "confirmed"),
    ("none was seen to run", unread(threads=(SLEEPS,)), UNREAD, "likely"),
    ("the process was not looked at", unread(process=None), UNREAD, "likely"),
    (
        "the queue is empty",
        unread(queues={"udp:40001": {"fd": 7, "rx_queue_bytes": 0}}),
        "unknown",
        "possible",
    ),
    ("it came just now", unread(age=0.2), "unknown", "possible"),
    (
        "at its end, without a look",
        goroutine(ANSWERED, age=1.5, status="ok"),
        UNREAD,
        "likely",
    ),
    ("it was read at once", goroutine(ANSWERED, age=0.2, status="ok"), None, None),
    (
        "the other question was never answered",
        goroutine(ANSWERED, WAITING, age=5.1, status="ok", resolv_conf=conf(ONE)),
        "one_reply_lost",
        "confirmed",
    ),
)
def test_reply_not_read(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """An answer in the queue of a goroutine that is not run, surely when a thread runs other code."""
    assert verdict(seen) == expected


def test_what_runs_is_named() -> None:
    """The evidence has the thread that runs, and no event loop or thread of the goroutine."""
    cause = judge(unread())
    assert cause is not None
    assert [told.fact for told in cause.evidence] == [
        "reply_seen",
        "rx_queue_not_empty",
        "thread_running_elsewhere",
    ]
    assert cause.evidence[2].numbers == {"thread": 21, "threads_running": 1, "threads": 5}
    assert "thread 21 is running other code" in cause.summary


def changed(age: float, **more: Any) -> Situation:
    """The file names another server since `age` seconds before the lookup began; the process is older."""
    wall_ns = 10_000 * S
    file = conf(TWO) | {"mtime_wall_ns": wall_ns - S - round(age * S), "path": "/etc/resolv.conf"}
    return goroutine(
        *both(ONE),
        **{
            "resolv_conf": file,
            "now_wall_ns": wall_ns,
            "process_started_wall_ns": wall_ns - 100 * S,
            "age": 1.0,
            **more,
        },
    )


@rows(
    ("three seconds before", changed(3), STALE, "confirmed"),
    ("longer ago than Go waits", changed(6), SILENT, "likely"),
    ("while it ran", changed(-0.5), SILENT, "likely"),
    ("cgo: libc looks each time", changed(3, api="cgo", resolver="glibc", tid=12), STALE, "confirmed"),
    ("the process is younger", changed(3, process_started_wall_ns=9_999 * S), SILENT, "likely"),
    ("it names the server", changed(3, resolv_conf=conf(ONE)), SILENT, "likely"),
)
def test_stale_resolv_conf(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """Go may ask a server of the old file for 5 s; later that is only told beside what was found."""
    assert verdict(seen) == expected


@pytest.mark.parametrize(("age", "word"), [(3, "was 3.0 s old"), (6, "no-reload")])
def test_how_old_the_file_is(age: float, word: str) -> None:
    """Whichever it is, the evidence says how old the file was, and when Go looks again."""
    cause = judge(changed(age))
    assert cause is not None
    texts = [told.text for told in cause.evidence if told.fact == "resolv_conf_changed"]
    assert any(word in text and "every 5.0 s" in text for text in texts)


@rows(
    ("connected sockets hear of closed ports", goroutine(*both(), age=5.5), SILENT, "confirmed"),
    ("too early", goroutine(*both(), age=1.0), SILENT, "likely"),
    (
        "of a resolver of another kind that is not known",
        situation(both(), age=5.5, resolver="unknown", thread=None),
        SILENT,
        "likely",
    ),
)
def test_ns_silent(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """Go's sockets are connected: a silence that lasted for its time-out is one."""
    assert verdict(seen) == expected


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (("timeout:30",), {"timeout_ms": 30_000.0, "attempts": 2, "servers": 1, "one_at_a_time": False}),
        (
            ("timeout:9", "attempts:3", "single-request"),
            {"timeout_ms": 9000.0, "attempts": 3, "servers": 1, "one_at_a_time": True},
        ),
        (
            ("single-request-reopen",),
            {"timeout_ms": 5000.0, "attempts": 2, "servers": 1, "one_at_a_time": True},
        ),
        (("timeout:5", "attempts:9"), None),
        ((), None),
    ],
)
def test_a_long_time_out_is_told(options: tuple[str, ...], numbers: dict[str, Any] | None) -> None:
    """Where resolv.conf makes a silent server cost more than usual, the evidence of the silence says so."""
    cause = judge(goroutine(*both(), age=4.0, resolv_conf=conf(ONE, options=options)))
    assert cause is not None
    assert cause.id == SILENT
    told = [evidence.numbers for evidence in cause.evidence if evidence.fact == "resolver_schedule"]
    assert told == ([] if numbers is None else [numbers])
