"""What a goroutine waits for: its question's socket, and the thread of the runtime that polls it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ebpfdns.model.facts import Lookup, Query, Server
from ebpfdns.publish.goroutine_wait import waiting_on

ASKED = Query(Server("192.0.2.53", 53), "udp", 1, local_port=41001)
LOOKUP = Lookup(1, 1, 4242, 0, 4242, "go", "in_flight", queries=(ASKED,))


def socket(fd: int, port: int) -> dict[str, Any]:
    local, remote = ["192.0.2.1", port], ["192.0.2.53", 53]
    return {"fd": fd, "kind": "udp", "local": local, "remote": remote, "rx_queue_bytes": 0}


PROCESS: dict[str, Any] = {
    "threads": [{"tid": 1, "syscall": "futex"}, {"tid": 2, "syscall": "epoll_pwait"}],
    "sockets": [socket(6, 41000), socket(7, 41001)],
}
SERVER = {"address": "192.0.2.53", "port": 53}


def test_the_socket_of_the_question_that_is_open() -> None:
    """A question without an answer has a socket, known by its port."""
    found = waiting_on(LOOKUP, PROCESS, None)
    assert found == {
        "syscall": "epoll_pwait",
        "since_ms": None,
        "socket": {"fd": 7, "server": SERVER, "rx_queue_bytes": 0},
    }


def test_what_left_before_tracing_is_known_by_its_descriptor() -> None:
    """No packet told the port of such a question; the stack of its goroutine shows the descriptor."""
    earlier = replace(LOOKUP, queries=(replace(ASKED, local_port=None, sent_is_known=False),))
    found = waiting_on(earlier, PROCESS, {"questions": [{"fd": 6}]})
    assert found is not None
    assert found["socket"]["fd"] == 6
    unknown = waiting_on(earlier, PROCESS, None)
    assert unknown is not None
    assert unknown["socket"] is None


def test_nobody_polls() -> None:
    """Where every thread does something else nobody waits for an answer, and nothing is claimed."""
    busy = PROCESS | {"threads": [{"tid": 1, "syscall": "running"}, {"tid": 2, "syscall": "futex"}]}
    assert waiting_on(LOOKUP, busy, None) is None
    assert waiting_on(LOOKUP, None, None) is None


def test_an_answered_question_is_not_waited_for() -> None:
    """When all has come, no socket is named."""
    answered = replace(LOOKUP, queries=(replace(ASKED, reply_ns=2),))
    found = waiting_on(answered, PROCESS, None)
    assert found is not None
    assert found["socket"] is None
