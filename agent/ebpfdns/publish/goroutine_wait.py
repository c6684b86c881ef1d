"""What a goroutine in a lookup waits for: it is parked, and a thread of its runtime polls its socket for it.

Owns: `waiting_on` of such a lookup, from the snapshot of its process. Must not know: how that was taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ebpfdns.model.facts import Lookup, Query

    Facts = Mapping[str, Any]

#: What Go's runtime polls sockets with.
POLLS = frozenset({"epoll_wait", "epoll_pwait", "epoll_pwait2"})


def waiting_on(lookup: Lookup, process: Facts | None, stack: Facts | None) -> dict[str, Any] | None:
    """The call that polls, and the socket of the first question that has no answer; None: nobody polls.

    `stack`: what the goroutine's stack showed when tracing began.
    """
    threads = (process or {}).get("threads") or ()
    polls = next((thread["syscall"] for thread in threads if thread.get("syscall") in POLLS), None)
    if polls is None:
        return None
    fds = {question.get("fd") for question in (stack or {}).get("questions") or ()}
    waiting = [query for query in lookup.queries if query.was_sent and not query.is_answered]
    found = next(_sockets(waiting, (process or {}).get("sockets") or (), fds), None)
    return {"syscall": polls, "since_ms": None, "socket": found}


def _sockets(waiting: Iterable[Query], sockets: Iterable[Facts], fds: set[Any]) -> Iterator[dict[str, Any]]:
    """Those of the questions, in their order: known by their own port, or by what the stack showed."""
    every = list(sockets)
    for query in waiting:
        server = {"address": query.server.address, "port": query.server.port}
        for one in every:
            remote, local = one.get("remote") or (None, None), one.get("local") or (None, None)
            is_own = one["fd"] in fds if query.local_port is None else local[1] == query.local_port
            if is_own and tuple(remote) == (query.server.address, query.server.port):
                yield {"fd": one["fd"], "server": server, "rx_queue_bytes": one.get("rx_queue_bytes")}
