"""Finds threads that owe their event loop a visit, and looks at what waits for them.

Owns: when a loop is looked at: a healthy one costs nothing but its line in the map of waits; one whose thread
is away is looked at when a line would be due, and less and less often while nothing in it is ready.
Must not know: lines, causes. Asks the pipeline what is due.

Threads may serve one epoll instance together: then the one that came back last speaks for all, and while any
of them waits there nobody is away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ebpfdns.correlate import items
from ebpfdns.model import boundary, decode
from ebpfdns.model.boundary import LookupFlag
from ebpfdns.observe import cgroup_cpu, loop_members, receive_queues, snapshot
from ebpfdns.observe.leftovers import ANY_AGE_NS
from ebpfdns.observe.processes import thread_name
from ebpfdns.observe.syscalls import EPOLL_WAITS
from ebpfdns.observe.unix_queues import UnixQueues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

    from ebpfdns.observe.kernel_maps import KernelMaps
    from ebpfdns.pipeline import Pipeline

    Facts = dict[str, Any]

CADENCE_NS, SHORTEST_NS = 250_000_000, 20_000_000
MAX_STALLS = 16  # in one look: the others come with the next
MAX_READY = 32
EASED_BY = 4  # nothing ready: looked at again when away for a quarter longer
POLLS = (boundary.WaitKind.POLL, boundary.WaitKind.PPOLL)


class _Away(NamedTuple):
    """A thread that is not in its loop."""

    key: int
    raw: bytes
    wait: Any  # a tuple of boundary.WAIT


class _Watched:
    """What was seen of one absence so far."""

    __slots__ = ("baseline", "first_ready_ns", "look_ns", "return_ns")

    def __init__(self, return_ns: int, baseline: tuple[int, int] | None) -> None:
        self.return_ns = return_ns
        self.baseline = baseline  # (when, throttled by then)
        self.first_ready_ns: dict[int, int] = {}
        self.look_ns = 0


class LoopWatch:
    """Looks of one agent at the event loops of its targets. `alive_tid`: a thread of a pid that is alive."""

    def __init__(
        self, maps: KernelMaps, pipeline: Pipeline, alive_tid: Callable[[int], int], stuck_after_ns: int
    ) -> None:
        self._maps = maps
        self._pipeline = pipeline
        self._alive_tid = alive_tid
        self._stuck_after_ns = stuck_after_ns
        self._watched: dict[int, _Watched] = {}
        self._unix_queues = UnixQueues()
        self.cadence_ns = max(SHORTEST_NS, min(CADENCE_NS, stuck_after_ns // 4))

    def look(self, now_ns: int, wall_ns: int) -> items.Stalls | None:
        """What is not served and due for a line; None when all is well."""
        away = self._away(now_ns)
        if not away:
            self._watched.clear()
            return None
        self._watched = {one.key: self._keep_watch(one, now_ns) for one in away}
        due = [one for one in away if self._is_due(one, now_ns)]
        stalls = [stall for one in due[:MAX_STALLS] if (stall := self._stall(one, now_ns)) is not None]
        return items.Stalls(now_ns=now_ns, wall_ns=wall_ns, stalls=stalls) if stalls else None

    # Who is away.

    def _away(self, now_ns: int) -> list[_Away]:
        """Threads that have been away for half the time to a line or longer; one for each epoll instance."""
        rows = self._maps.waits(now_ns - self._stuck_after_ns // 2)
        away: dict[Any, _Away] = {}
        for key, raw in rows:
            wait = boundary.WAIT.unpack(raw)
            if wait.returns < boundary.LOOP_RETURNS or decode.is_in_loop(wait):
                continue
            loop = (wait.pid, wait.last_fd) if wait.last_fd >= 0 else key
            if loop not in away or wait.last_return_ns > away[loop].wait.last_return_ns:
                away[loop] = _Away(key, raw, wait)
        if not away:
            return []
        served = {
            (wait.pid, fd)
            for _, raw in self._maps.waits(None)
            for wait in (boundary.WAIT.unpack(raw),)
            for fd in _served(wait, now_ns - self._stuck_after_ns // 2)
        }
        return [one for loop, one in away.items() if loop not in served]

    def _keep_watch(self, one: _Away, now_ns: int) -> _Watched:
        known = self._watched.get(one.key)
        if known is not None and known.return_ns == one.wait.last_return_ns:
            return known
        throttled_ns = cgroup_cpu.throttled_ns(one.wait.pid)
        return _Watched(one.wait.last_return_ns, None if throttled_ns is None else (now_ns, throttled_ns))

    def _is_due(self, one: _Away, now_ns: int) -> bool:
        is_eased = now_ns < self._watched[one.key].look_ns
        return not is_eased and self._pipeline.is_stall_due(one.key, one.wait.last_return_ns, now_ns)

    # What waits for them.

    def _stall(self, one: _Away, now_ns: int) -> items.Stall | None:
        """What there is to tell; None when nothing is ready, or the thread is in its loop after all."""
        watched, wait = self._watched[one.key], one.wait
        watched.look_ns = now_ns + (now_ns - wait.last_return_ns) // EASED_BY
        if self._is_in_lookup(one):
            return None
        tid = self._alive_tid(wait.pid)
        lookups = self._unread_lookups(one.key)
        found = loop_members.ready(tid, _members(tid, wait), self._unix_queues)
        found += _unread_sockets(tid, lookups, {facts["fd"] for facts in found})
        watched.first_ready_ns = {
            facts["fd"]: watched.first_ready_ns.get(facts["fd"], now_ns) for facts in found
        }
        if not found:
            return None
        thread = snapshot.thread_snapshot(wait.pid, wait.tid)
        latest = self._maps.wait_of(one.key)
        is_away = latest is not None and boundary.WAIT.unpack(latest).last_return_ns == wait.last_return_ns
        if not is_away or _waits_for_the_loop(thread, wait):
            return None
        return items.Stall(
            key=one.key,
            wait=one.raw,
            thread_name=_thread_name(wait.pid, wait.tid),
            ready=[
                {**facts, "ready_ns": now_ns - watched.first_ready_ns[facts["fd"]]}
                for facts in found[:MAX_READY]
            ],
            state=thread["state"],
            syscall=thread["syscall"],
            throttled_ns=_throttled(watched, wait.pid, now_ns),
            lookups=lookups,
        )

    def _is_in_lookup(self, one: _Away) -> bool:
        """Whether it polls for libc's resolver: what it waited for before is then not known any more."""
        call = None if one.wait.last_fd >= 0 else self._maps.call_of(one.key)
        return call is not None and boundary.CALL.unpack(call).start_ns != 0

    def _unread_lookups(self, key: int) -> list[bytes]:
        """Lookups whose answers this thread has left unread."""
        found = []
        for raw in self._maps.open_lookups(ANY_AGE_NS):
            head = boundary.LOOKUP.unpack(raw)
            if head.flags & LookupFlag.ANSWER_UNREAD and head.host_pid << 32 | head.host_tid == key:
                found.append(raw)
        return found


def _served(wait: Any, since_ns: int) -> Iterable[int]:  # noqa: ANN401 - a tuple of boundary.WAIT
    """The epoll instances that a thread waits in now, or came back from after a time."""
    if wait.start_ns and wait.fd >= 0:
        yield wait.fd
    if wait.last_fd >= 0 and wait.last_return_ns >= since_ns:
        yield wait.last_fd


def _members(tid: int, wait: Any) -> list[loop_members.Member]:  # noqa: ANN401 - a tuple of boundary.WAIT
    if wait.last_fd >= 0:
        return loop_members.of_epoll(tid, wait.last_fd)
    if wait.last_kind in POLLS:
        return loop_members.of_poll(tid, wait.set, wait.set_size)
    return loop_members.of_select(wait.set)


def _unread_sockets(tid: int, lookups: Iterable[bytes], known: AbstractSet[int]) -> list[Facts]:
    """DNS sockets with an answer that are no members: libuv makes them so only when it waits again."""
    names = set().union(*(receive_queues.with_answers(raw) for raw in lookups))
    queues = receive_queues.receive_queues(tid, names) if names else {}
    return [
        {
            "fd": facts["fd"],
            "is_edge_triggered": False,
            "kind": name.partition(":")[0],
            "local": [None, int(name.partition(":")[2])],
            "rx_queue_bytes": facts["rx_queue_bytes"],
        }
        for name, facts in queues.items()
        if facts["rx_queue_bytes"] and facts["fd"] not in known
    ]


def _waits_for_the_loop(thread: Facts, wait: Any) -> bool:  # noqa: ANN401 - a tuple of boundary.WAIT
    """Whether it polls its epoll instance from outside, as loops within loops do."""
    if thread["syscall"] in EPOLL_WAITS:
        return True
    return wait.last_fd >= 0 and wait.last_fd in thread["fds"]


def _thread_name(pid: int, tid: int) -> bytes | None:
    name = thread_name(pid, tid)
    return None if name is None else name.encode("utf-8", "surrogateescape")


def _throttled(watched: _Watched, pid: int, now_ns: int) -> int | None:
    """For how long its cgroup was out of CPU time since it is watched; several CPUs count for one."""
    latest_ns = cgroup_cpu.throttled_ns(pid)
    if watched.baseline is None or latest_ns is None:
        return None
    since_ns, before_ns = watched.baseline
    return max(0, min(latest_ns - before_ns, now_ns - since_ns))
