"""Facts put into words: one function for each kind of observation that several rules tell.

Owns: the sentence and the numbers of a piece of evidence.
Must not know: what follows from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import DEFAULT_TIMEOUT_S, NS_PER_S
from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.wording import (
    errno_name,
    milliseconds,
    seconds,
    server_text,
    shown,
    shown_text,
    times,
)
from ebpfdns.model.dns_names import rcode_name, type_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.diagnose.threads import Socket, Thread
    from ebpfdns.model.facts import Query, Server

ECONNREFUSED = 111
DEFAULT_ATTEMPTS = 2


def no_reply(case: LookupCase, server: Server) -> Evidence:
    """This server has answered none of the questions that wait for it."""
    queries = [query for query in case.queries_to(server) if case.is_open_question(query)]
    waited_ns = max(map(case.waited_ns, queries), default=0)
    sent = sum(query.attempts for query in queries)
    verb = "has not answered" if case.is_open else "did not answer"
    asked = "1 question" if len(queries) == 1 else f"{len(queries)} questions"
    repeated = f", sent {times(sent)} in all" if sent > len(queries) else ""
    return Evidence(
        "no_reply",
        f"{server_text(server)} {verb} {asked} for {case.lasted(waited_ns)}{repeated}",
        {
            "server": server.address,
            "port": server.port,
            "waited_ms": milliseconds(waited_ns),
            "queries": len(queries),
            "sent": sent,
        },
    )


def schedule(case: LookupCase) -> list[Evidence]:
    """That resolv.conf makes it wait longer than resolvers do by themselves, or ask one after the other."""
    words = dict(
        option.partition(":")[::2] for option in (case.situation.resolv_conf or {}).get("options") or ()
    )
    is_serial = bool({"single-request", "single-request-reopen"} & words.keys())
    timeout_ns = case.timeout_ns
    if timeout_ns <= DEFAULT_TIMEOUT_S * NS_PER_S and not is_serial:
        return []
    tries = int(words["attempts"]) if words.get("attempts", "").isdecimal() else DEFAULT_ATTEMPTS
    servers = len((case.situation.resolv_conf or {}).get("nameservers") or ()) or 1
    numbers: Numbers = {
        "timeout_ms": milliseconds(timeout_ns),
        "attempts": tries,
        "servers": servers,
        "one_at_a_time": is_serial,
    }
    order = ", and asks for IPv4 and IPv6 one after the other" if is_serial else ""
    whom = "the only server" if servers == 1 else f"each of {servers} servers"
    text = f"resolv.conf has it wait {seconds(timeout_ns)} for {whom}, {times(tries)}{order}"
    return [Evidence("resolver_schedule", text, numbers)]


def reply_seen(case: LookupCase, query: Query) -> Evidence:
    """A question was answered."""
    waited_ns = case.waited_ns(query)
    rcode = rcode_name(query.rcode or 0)
    server = server_text(query.server)
    numbers: Numbers = {
        "server": query.server.address,
        "type": _type(query),
        "rcode": rcode,
        "reply_ms": milliseconds(waited_ns),
    }
    text = f"{server} answered {question(query)} with {rcode} after {seconds(waited_ns)}"
    return Evidence("reply_seen", text, numbers)


def query_sent(case: LookupCase) -> Evidence:
    """How much was asked so far, and how much of it is open."""
    asked = len(case.sent) + case.lookup.more_queries
    waiting = sum(map(case.is_open_question, case.sent))
    numbers: Numbers = {"elapsed_ms": milliseconds(case.elapsed_ns), "queries": asked, "unanswered": waiting}
    age = case.lasted(case.elapsed_ns)
    if not asked:
        return Evidence("query_sent", f"in {age} no question to a DNS server was seen", numbers)
    plural = "question" if asked == 1 else "questions"
    text = f"in {age} it asked {asked} {plural}, {waiting} of them unanswered"
    return Evidence("query_sent", text, numbers)


def connect_no_route(query: Query) -> Evidence:
    """The kernel refused to send to this server, or a router told it so."""
    name = errno_name(query.error or 0)
    how = "came back from the network for" if query.was_sent else "is what the kernel said at once to"
    numbers: Numbers = {"server": query.server.address, "errno": query.error, "error": name}
    return Evidence("connect_no_route", f"{name} {how} {server_text(query.server)}", numbers)


def socket_error(query: Query) -> Evidence:
    """The socket was told an error."""
    name = errno_name(query.error or 0)
    text = f"the socket to {server_text(query.server)} was told {name}"
    if query.error == ECONNREFUSED and query.transport == "udp":
        text += ": port unreachable, nothing listens there"
    return Evidence(
        "socket_error",
        text,
        {"server": query.server.address, "port": query.server.port, "errno": query.error, "error": name},
    )


def errors(queries: Iterable[Query]) -> list[Evidence]:
    """The errors that questions met, one for each server and number."""
    met = {(q.server, q.error): q for q in queries if q.error is not None and not q.is_answered}
    return [
        socket_error(query)
        if query.error == ECONNREFUSED or query.transport == "tcp"
        else connect_no_route(query)
        for query in met.values()
    ]


def question(query: Query) -> str:
    """What was asked, as far as it is known: `www.example. A`."""
    words = [shown(query.name) if query.name is not None else "", _type(query) or ""]
    return " ".join(filter(None, words)) or "a question"


def _type(query: Query) -> str | None:
    return None if query.type is None else type_name(query.type)


# The thread and its sockets.


def thread_waits(thread: Thread, elapsed_ns: int) -> Evidence:
    """What the thread does."""
    numbers: Numbers = {
        "state": thread.state,
        "syscall": thread.syscall,
        "elapsed_ms": milliseconds(elapsed_ns),
    }
    if thread.is_stopped:
        return Evidence("process_stopped", f"the thread is stopped (state {thread.state})", numbers)
    if thread.is_running:
        return Evidence("thread_running_elsewhere", "the thread does not wait: it is running", numbers)
    if thread.syscall is None:
        text = f"the thread is blocked (state {thread.state}), in which system call is not known"
    else:
        text = f"the thread sits in {shown_text(thread.syscall)}"
    return Evidence("blocked_in_syscall", text, numbers)


def sockets(thread: Thread) -> list[Evidence]:
    """The queues and peers of what the thread waits for."""
    return [told for told in map(_socket, thread.sockets) if told is not None]


def _socket(waited: Socket) -> Evidence | None:
    if waited.path is not None:
        path = shown_text(waited.path)
        return Evidence("unix_peer_waited_for", f"it waits for {path}", {"path": path, "fd": waited.fd})
    if waited.remote is None:
        return None
    peer = waited.remote.text
    if waited.state == "SYN_SENT":
        count = waited.retransmits or 0
        text = f"the TCP connection to {peer} is not up yet; its SYN was sent {times(count + 1)}"
        return Evidence("syn_retransmitted", text, {"peer": peer, "fd": waited.fd, "retransmits": count})
    if waited.kind == "tcp" and waited.tx_queue_bytes:
        text = f"{peer} has not acknowledged what was sent to it"
        return Evidence("tx_queue_not_acked", text, {"peer": peer, "tx_queue_bytes": waited.tx_queue_bytes})
    return None if waited.rx_queue_bytes is None else _receive_queue(peer, waited)


def _receive_queue(peer: str, waited: Socket) -> Evidence:
    """What has arrived and was not read."""
    numbers: Numbers = {"peer": peer, "fd": waited.fd, "rx_queue_bytes": waited.rx_queue_bytes}
    if waited.rx_queue_bytes:
        return Evidence("rx_queue_not_empty", f"what {peer} sent lies unread in the socket", numbers)
    return Evidence("rx_queue_empty", f"nothing from {peer} lies unread in the socket", numbers)


def fragments_incomplete(case: LookupCase) -> list[Evidence]:
    """Packets that came in fragments, and not whole: an answer may be among them."""
    seen = (case.situation.process or {}).get("fragments") or {}
    held = seen.get("incomplete")
    if not held:
        return []
    packets = "a packet lies" if held == 1 else f"{held} packets lie"
    text = f"{packets} in this network namespace of which fragments are missing"
    return [Evidence("fragments_incomplete", text, {"incomplete": held, "failed_before": seen.get("failed")})]


# What the agent could not see.


def not_observable(case: LookupCase) -> list[Evidence]:
    """Everything that kept the agent from seeing more."""
    told = [Evidence("probe_missing", f"not seen: {shown_text(text)}") for text in case.situation.missing]
    if not case.situation.wire and not told:
        told.append(Evidence("probe_missing", "not seen: DNS packets of this process"))
    if case.lookup.before_attach:
        text = "the lookup was under way when tracing began: what it asked before was not seen"
        told.append(Evidence("attached_late", text))
    if case.is_open and case.thread is None and not case.lookup.is_of_go:  # a goroutine sits in none
        told.append(Evidence("probe_missing", "not seen: what the thread sits in"))
    return told
