"""What a look at a thread adds to a lookup that began before tracing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ebpfdns.correlate.earlier import completed
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
