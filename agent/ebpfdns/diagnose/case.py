"""A lookup or connect as the rules look at it: its situation, and what follows from that by arithmetic.

Owns: how long each question has waited, which servers were asked in which order, what was silent.
Must not know: causes, wording.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from ebpfdns.diagnose.once import worked_out_once
from ebpfdns.diagnose.threads import Socket, Thread, thread_of
from ebpfdns.diagnose.wording import seconds

if TYPE_CHECKING:
    from ebpfdns.model.facts import Connect, Lookup, Query, Server, Situation

NS_PER_S = 1_000_000_000
#: A silence shorter than this says nothing: answers may take as long.
WORTH_SAYING_NS = NS_PER_S // 5
#: "A second", less what passes between the start of a lookup and its first question.
A_SECOND_NS = NS_PER_S * 9 // 10
DEFAULT_TIMEOUT_S = 5
MAX_TIMEOUT_S = 30
MAX_NAMESERVERS = 3  # libcs ignore the others
A, AAAA = 1, 28
DNS_PORTS = (53, 853)
ETIMEDOUT = 110
FEW_SERVERS = 256  # a host's resolvers ask the same ones again and again


@dataclass(frozen=True)
class LookupCase:
    """One lookup at one moment: now, or when it ended. What rules ask for often is worked out once."""

    situation: Situation
    lookup: Lookup

    @property
    def is_open(self) -> bool:
        """Whether it is still in flight."""
        return self.lookup.status == "in_flight"

    @worked_out_once
    def at_ns(self) -> int:
        """The moment that is judged."""
        return self.situation.now_ns if self.lookup.end_ns is None else self.lookup.end_ns

    @property
    def elapsed_ns(self) -> int:
        """How long it has taken so far, or took."""
        return max(0, self.at_ns - self.lookup.start_ns)

    @worked_out_once
    def thread(self) -> Thread | None:
        """What its thread does; None when not looked at, or the lookup has ended."""
        return thread_of(self.situation.thread) if self.is_open else None

    def lasted(self, duration_ns: int) -> str:
        """How long something in it takes or took, in words: a start before tracing was not seen."""
        return f"at least {seconds(duration_ns)}" if self.lookup.before_attach else seconds(duration_ns)

    def waited_ns(self, query: Query) -> int:
        """How long the question waited for its answer, or has so far."""
        until_ns = self.at_ns if query.reply_ns is None else query.reply_ns
        return max(0, until_ns - query.sent_ns)

    # What was asked, and what became of it.

    @worked_out_once
    def sent(self) -> tuple[Query, ...]:
        """The questions that left."""
        return tuple(query for query in self.lookup.queries if query.was_sent)

    @worked_out_once
    def answered(self) -> tuple[Query, ...]:
        """Those that a reply came to."""
        return tuple(query for query in self.sent if query.is_answered)

    def is_open_question(self, query: Query) -> bool:
        """Whether an answer to it is still missing: no reply, no error, no other server that answered it."""
        if not query.was_sent or query.is_answered or query.error is not None:
            return False
        twins = (other for other in self.answered if (other.id, other.type) == (query.id, query.type))
        return not (query.settled and any(twins))

    def went_on_by_tcp(self, query: Query) -> bool:
        """Whether its answer is not waited for any more: its twin's was truncated, and both go by TCP now."""
        return any(
            other.transport == "tcp" and other.server == query.server and other.sent_ns >= query.sent_ns
            for other in self.lookup.queries
        ) and any(other.truncated and other.server == query.server for other in self.answered)

    @worked_out_once
    def silent(self) -> tuple[Query, ...]:
        """UDP questions without an answer for long enough to be worth a word."""
        return tuple(
            query
            for query in self.sent
            if query.transport == "udp"
            and self.is_open_question(query)
            and not self.went_on_by_tcp(query)
            and self.waited_ns(query) >= WORTH_SAYING_NS
        )

    def failed_with(self, *errors: int, sent: bool | None = None) -> tuple[Query, ...]:
        """UDP questions that met one of these errors; `sent`: only those that did leave, or did not."""
        return tuple(
            query
            for query in self.lookup.queries
            if query.transport == "udp"
            and query.error in errors
            and not query.is_answered
            and sent in (None, query.was_sent)
        )

    @property
    def was_silence_seen(self) -> bool:
        """Whether each question without an answer was seen to leave, a while ago: none has come since."""
        waiting = [query for query in self.sent if self.is_open_question(query)]
        return bool(waiting) and all(map(self._was_seen_unanswered, waiting))

    def _was_seen_unanswered(self, query: Query) -> bool:
        if query.sent_is_known:
            return True
        return query.resent_ns is not None and self.at_ns - query.resent_ns >= A_SECOND_NS

    # Servers.

    @worked_out_once
    def servers(self) -> tuple[Server, ...]:
        """The servers that UDP questions left for, in the order of their first one."""
        asked = sorted((query for query in self.sent if query.transport == "udp"), key=lambda q: q.sent_ns)
        return tuple(dict.fromkeys(query.server for query in asked))

    def queries_to(self, server: Server) -> tuple[Query, ...]:
        """The UDP questions that left for one server."""
        return tuple(q for q in self.sent if q.transport == "udp" and q.server == server)

    def first_sent_ns(self, server: Server) -> int:
        """When a server was asked first."""
        return min(query.sent_ns for query in self.queries_to(server))

    @worked_out_once
    def not_asked_yet(self) -> tuple[str, ...] | None:
        """Servers of resolv.conf that nothing was tried with; None when its content is not known."""
        conf = self.situation.resolv_conf
        if not conf or not conf.get("present") or not conf.get("nameservers"):
            return None
        tried = {same_address(query.server.address) for query in self.lookup.queries}
        configured = conf["nameservers"][:MAX_NAMESERVERS]
        return tuple(address for address in configured if same_address(address) not in tried)

    @worked_out_once
    def timeout_ns(self) -> int:
        """How long the resolver waits for a server at first, by its configuration."""
        for option in reversed((self.situation.resolv_conf or {}).get("options") or []):
            keyword, _, value = option.partition(":")
            if keyword == "timeout" and value.isascii() and value.isdigit():
                return min(max(1, int(value)), MAX_TIMEOUT_S) * NS_PER_S
        return DEFAULT_TIMEOUT_S * NS_PER_S

    def was_given_up(self, query: Query) -> bool:
        """Whether the resolver has stopped waiting for this attempt: asked again, moved on, or ended."""
        if query.attempts > 1 or self.lookup.status == "failed":
            return True
        moved_on = (
            other.sent_ns >= query.sent_ns + A_SECOND_NS
            for other in self.lookup.queries
            if other.server != query.server or other.socket != query.socket
        )
        return self.waited_ns(query) >= self.timeout_ns or any(moved_on)

    @property
    def hears_errors(self) -> bool:
        """Whether an ICMP error (a closed port) would have been seen: only connected sockets are told."""
        if self.situation.resolver in {"glibc", "go"} and not self.lookup.is_wire:
            return True
        waited_for = self.thread.sockets if self.thread else ()
        return any(waited.kind == "udp" and waited.is_dns for waited in waited_for)

    @property
    def has_stray_reply(self) -> bool:
        """Whether something came that may have been meant as an answer: the server is not plainly silent."""
        return bool(self.lookup.unexpected_replies) or any(
            (query.dropped_ns is not None or query.late_ns is not None) and not self.went_on_by_tcp(query)
            for query in self.sent
        )

    @property
    def has_unread_answer(self) -> bool:
        """Whether something lies unread in a DNS socket that the thread waits for."""
        waited_for = self.thread.sockets if self.thread else ()
        return any(waited.is_dns and waited.rx_queue_bytes for waited in waited_for)


@dataclass(frozen=True, slots=True)
class ConnectCase:
    """One connect at one moment: now, or when it ended."""

    situation: Situation
    connect: Connect

    @property
    def is_open(self) -> bool:
        """Whether it is still in flight."""
        return self.connect.status == "in_flight"

    def lasted(self, duration_ns: int) -> str:
        """How long it takes or took, in words: of what began before tracing only the end is known."""
        return f"at least {seconds(duration_ns)}" if self.connect.before_attach else seconds(duration_ns)

    @property
    def elapsed_ns(self) -> int:
        """How long it has taken so far, or took."""
        at_ns = self.situation.now_ns if self.connect.end_ns is None else self.connect.end_ns
        return max(0, at_ns - self.connect.start_ns)

    @property
    def is_unanswered_application(self) -> bool:
        """Whether it is TCP traffic of the program's own that nobody answers.

        While in flight its SYN is out; once ended, it had to be sent again or ran into its time-out.
        """
        connect = self.connect
        if connect.transport != "tcp" or connect.is_tls or connect.in_lookup or connect.server is None:
            return False
        if connect.server.port in DNS_PORTS:
            return False
        if self.is_open:
            return connect.tcp_state == "SYN_SENT"
        return connect.status != "ok" and (connect.retransmits > 0 or connect.error == ETIMEDOUT)

    @property
    def socket(self) -> Socket | None:
        """The thread's own view of this connection's socket, when it waits for it."""
        thread = thread_of(self.situation.thread)
        waited_for = thread.sockets if thread else ()
        return next((s for s in waited_for if s.kind == "tcp" and s.remote == self.connect.server), None)


@lru_cache(maxsize=FEW_SERVERS)
def same_address(text: str) -> str:
    """One spelling for each address; a scope (`%eth0`) does not make another one of it."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return text


@lru_cache(maxsize=FEW_SERVERS)
def is_local(server: Server) -> bool:
    """Whether the server is a daemon on the target's own loopback interface."""
    try:
        return ipaddress.ip_address(server.address.partition("%")[0]).is_loopback
    except ValueError:
        return False
