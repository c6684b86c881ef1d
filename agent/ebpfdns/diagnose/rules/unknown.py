"""`unknown`: the facts fit no cause. Saying so, with all that was seen, is a good answer.

Owns: the words for what was seen. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import (
    errors,
    no_reply,
    not_observable,
    query_sent,
    reply_seen,
    sockets,
    thread_waits,
)
from ebpfdns.diagnose.wording import dig, milliseconds, seconds, server_text, shown_text, subject, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import ConnectCase, LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Query, Server


def rule(case: LookupCase) -> Cause:
    """Whatever is left."""
    return Cause("unknown", "possible", _summary(case), observations(case), _remedy(case))


def observations(case: LookupCase) -> tuple[Evidence, ...]:
    """Elapsed, the questions, what the thread sits in, its sockets, and what could not be seen."""
    told = [query_sent(case)]
    told += [reply_seen(case, query) for query in case.answered]
    told += [no_reply(case, server) for server in case.servers if _owes(case, server)]
    told += errors(case.lookup.queries)
    told += [_not_sent(query.server.address) for query in case.lookup.queries if _was_only_tried(query)]
    if case.lookup.unexpected_replies:
        count = case.lookup.unexpected_replies
        text = f"a reply that fits no question came {times(count)}"
        told.append(Evidence("reply_mismatch", text, {"replies": count}))
    if case.thread is not None:
        told += [thread_waits(case.thread, case.elapsed_ns), *sockets(case.thread)]
    return (*told, *not_observable(case))


def of_connect(case: ConnectCase) -> Cause | None:
    """A connect in flight that no rule explains; one that has ended needs no cause."""
    if not case.is_open:
        return None
    connect = case.connect
    peer = shown_text(connect.server.text) if connect.server else "a local socket"
    if connect.path is not None:
        peer = shown_text(connect.path.decode("utf-8", "backslashreplace"))
    state = f" (TCP state {connect.tcp_state})" if connect.tcp_state else ""
    numbers: Numbers = {
        "peer": peer,
        "elapsed_ms": milliseconds(case.elapsed_ns),
        "retransmits": connect.retransmits,
    }
    fact = "unix_peer_waited_for" if connect.family == "unix" else "blocked_in_syscall"
    text = f"the connect to {peer} has not come back for {case.lasted(case.elapsed_ns)}{state}"
    return Cause(
        "unknown",
        "possible",
        f"Why the connect to {peer} hangs cannot be said from what was seen.",
        (Evidence(fact, text, numbers),),
        f"Try: {_look_at(connect.pid, connect.tid)}",
    )


def _summary(case: LookupCase) -> str:
    """What is known, in a sentence."""
    name, age = subject(case.lookup), case.lasted(case.elapsed_ns)
    if case.lookup.status == "ok":
        return f"The lookup of {name} worked, but took {age}: {_slowest(case)}."
    verb = "has taken" if case.is_open else "took"
    stands = _where_it_stands(case)
    return f"The lookup of {name} {verb} {age}, and what was seen fits no known cause: {stands}."


def _where_it_stands(case: LookupCase) -> str:
    waiting = [query for query in case.sent if case.is_open_question(query)]
    if waiting and case.answered:
        return f"{server_text(waiting[0].server)} owes an answer, others came"
    if waiting:
        return f"{server_text(waiting[0].server)} owes an answer"
    if case.answered:
        return "every question that was seen is answered" if case.is_open else _slowest(case)
    thread = case.thread
    if thread is not None and thread.syscall and not thread.is_running:
        return f"no question was seen, and its thread sits in {shown_text(thread.syscall)}"
    return "no question to a DNS server was seen"


def _slowest(case: LookupCase) -> str:
    """Which answer took longest."""
    if not case.answered:
        return "no answer of a DNS server was seen"
    query = max(case.answered, key=case.waited_ns)
    repeated = f", asked {times(query.attempts)}" if query.attempts > 1 else ""
    return f"{server_text(query.server)} answered after {seconds(case.waited_ns(query))}{repeated}"


def _remedy(case: LookupCase) -> str:
    pid = case.lookup.pid
    again = f"strace -f -e trace=%network -p {pid} while it looks up again"
    stacks = f"kill -QUIT {pid}, which ends it and prints the stacks of all goroutines"
    look = stacks if case.lookup.is_of_go else _look_at(pid, case.lookup.tid)
    look = look if case.is_open else again
    if not case.servers:
        return f"Try: {look}"
    return f"Try: {dig(case.servers[-1], case.lookup)}; {look}"


def _look_at(pid: int, tid: int) -> str:
    """Commands that show what a thread that hangs waits for."""
    return f"cat /proc/{pid}/task/{tid}/stack; ss -tuxp | grep pid={pid}"


def _owes(case: LookupCase, server: Server) -> bool:
    return any(query.server == server and case.is_open_question(query) for query in case.sent)


def _was_only_tried(query: Query) -> bool:
    return not query.was_sent and query.error is None


def _not_sent(address: str) -> Evidence:
    text = f"a question for {address} was to be sent, and no packet left"
    return Evidence("connect_no_route", text, {"server": address, "errno": None})
