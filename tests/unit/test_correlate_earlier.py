"""What a look at a thread adds to a lookup that began before tracing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ebpfdns.correlate.earlier import completed, completed_goroutine
from ebpfdns.model.facts import Lookup, Query, Server

SERVER = Server("192.0.2.53", 53)
FOUND = Lookup(1, 100, 10, 11, 10, "none", "in_flight", before_attach=True)
SOCKET: dict[str, Any] = {"fd": 3, "kind": "udp", "remote": ["192.0.2.53", 53], "state": "ESTABLISHED"}
LOOK = {"sockets": [SOCKET], "resolver_wait": {"kind": "dns", "fds": [3]}}
EARLIER = Query(SERVER, "udp", 100, sent_is_known=False)
SEEN = Query(SERVER, "udp", 200, socket=9, name=b"www.lab.test.", type=1, id=7)


def test_the_socket_tells_whom_it_asked() -> None:
    """Server and transport are known; when, and what, are not."""
    assert completed(FOUND, LOOK, None).queries == (EARLIER,)


def test_a_question_seen_takes_its_place_and_gives_the_name() -> None:
    """The same server asked again: that question is whole, and has the name."""
    found = completed(replace(FOUND, queries=(SEEN,)), LOOK, None)
    assert (found.queries, found.name) == ((SEEN,), b"www.lab.test")


def test_on_the_same_socket_it_is_a_repetition() -> None:
    """A libc has one socket for a question and its repetitions: both have waited since it was found."""
    same = {**LOOK, "resolver_wait": {"kind": "dns", "fds": [3], "is_first_socket": True}}
    pair = (SEEN, replace(SEEN, type=28, id=8))
    found = completed(replace(FOUND, queries=pair), same, completed(FOUND, LOOK, None))
    for query, seen in zip(found.queries, pair, strict=True):
        assert (query.sent_ns, query.sent_is_known, query.resent_ns) == (100, False, seen.sent_ns)
        assert (query.id, query.type, query.attempts) == (seen.id, seen.type, 2)
    ended = completed(replace(FOUND, queries=pair, status="unseen"), None, found)
    assert ended.queries == found.queries


def test_the_message_in_its_memory_is_the_question() -> None:
    """With it the question is whole but for its time; seen again, with this id, it is a repetition."""
    asked = {"name": "www.lab.test.", "types": ["A"], "ids": [7]}
    found = completed(FOUND, {**LOOK, "asked": asked}, None)
    assert found.queries == (replace(EARLIER, name=b"www.lab.test.", type=1, id=7),)
    assert found.name == b"www.lab.test"
    again = SEEN
    repeated = completed(replace(FOUND, queries=(again,)), {**LOOK, "asked": asked}, found)
    assert repeated.queries == (replace(again, sent_ns=100, sent_is_known=False, resent_ns=200, attempts=2),)


def test_the_name_is_what_the_program_gave() -> None:
    """The question may have a search domain behind it: where the stack shows the name without, that is it."""
    asked = {"name": "www.corp.test.", "types": ["A"], "ids": [7], "program_name": "www"}
    found = completed(FOUND, {**LOOK, "asked": asked}, None)
    assert (found.name, found.queries[0].name) == (b"www", b"www.corp.test.")


def test_what_was_known_stays_known() -> None:
    """At the end nobody can look any more."""
    before = completed(replace(FOUND, comm=b"worker"), LOOK, None)
    assert completed(replace(FOUND, status="unseen"), None, before).queries == (EARLIER,)
    assert completed(FOUND, None, replace(before, name=b"x")).name == b"x"


def test_a_connection_that_is_not_up_carries_no_question() -> None:
    """SYN_SENT: nothing was asked yet. Other sockets ask nothing either."""
    waiting = {**SOCKET, "kind": "tcp", "state": "SYN_SENT"}
    assert completed(FOUND, {**LOOK, "sockets": [waiting, {**SOCKET, "fd": 4}]}, None).queries == ()


GO = replace(FOUND, api="go")
ASKED = {"name": "www.lab.test.", "type": "A", "id": 7, "server": ["192.0.2.53", 53], "transport": "udp"}
STACK = {"name": "www.lab.test", "questions": [ASKED, ASKED | {"type": "AAAA", "id": 8}]}
SHOWN = Query(SERVER, "udp", 100, sent_is_known=False, attempt="running", name=b"www.lab.test.", type=1, id=7)


def test_a_goroutine_s_stack_tells_its_questions() -> None:
    """Each has its own id and server; a name that its memory does not prove is that of the question."""
    found = completed_goroutine(GO, STACK, None)
    assert found.queries == (SHOWN, replace(SHOWN, type=28, id=8))
    assert found.name == b"www.lab.test"
    assert completed_goroutine(GO, STACK | {"name": None}, None).name == b"www.lab.test"


def test_later_attempts_are_others() -> None:
    """Go asks again from another socket: the first question stays, and is not told twice when it is seen."""
    first = completed_goroutine(GO, STACK, None)
    later = replace(SEEN, id=9)
    assert completed_goroutine(replace(GO, queries=(later,)), None, first).queries == (*first.queries, later)
    again = completed_goroutine(replace(GO, queries=(SEEN,)), STACK, first)
    assert again.queries == (first.queries[1], SEEN)


def test_who_has_no_connection_has_not_asked() -> None:
    """An attempt whose socket is not connected has sent nothing, and one without a server is not told."""
    (query,) = completed_goroutine(GO, {"questions": [ASKED | {"transport": None, "id": None}]}, None).queries
    assert (query.was_sent, query.transport) == (False, None)
    assert completed_goroutine(GO, {"questions": [ASKED | {"server": None}]}, None).queries == ()
