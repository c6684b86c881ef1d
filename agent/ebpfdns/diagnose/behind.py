"""A local daemon that has our question and waits for its own servers: what was seen of that, and the words.

Owns: whether the last hop explains the wait, and the evidence that all rules about hops tell.
Must not know: which cause follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from ebpfdns.diagnose.case import A_SECOND_NS, WORTH_SAYING_NS
from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.observations import no_reply
from ebpfdns.diagnose.wording import listing, milliseconds, seconds, server_text, shown, shown_text, times

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.model.facts import Hop, HopConnect, Query, Server

#: As long as systemd-resolved waits for an answer to one packet.
UPSTREAM_TIMEOUT_NS = 5 * 1_000_000_000
RESOLVED = "systemd-resolved"
TLS_SILENCE = {
    "syn": "{peer} does not answer its connection attempts",
    "hello": "{peer} takes the connection but does not answer the TLS handshake",
    "answer": "{peer} does not answer on the TLS session, which is up",
}


@dataclass(frozen=True, slots=True)
class Behind:
    """The hop at the end of the chain, for which the lookup waits in the end."""

    hop: Hop
    waited_ns: int  # by our lookup, for the first hop
    at_ns: int

    @property
    def text(self) -> str:
        """Who that is."""
        name = RESOLVED if self.hop.is_resolved else shown_text(self.hop.name or "the daemon")
        return f"{name} (process {self.hop.pid})"

    @property
    def open_queries(self) -> tuple[Query, ...]:
        """Its own questions that have waited for long enough to be worth a word."""
        return tuple(query for query in self.hop.queries if self.silence_ns(query) >= WORTH_SAYING_NS)

    def silence_ns(self, query: Query) -> int:
        """How long a question of its own has waited; one that left unseen, as long as ours has."""
        if not query.sent_is_known:
            return self.waited_ns
        return max(0, self.at_ns - query.sent_ns)

    def asked_of(self, server: Server) -> list[Query]:
        """All that this server was asked and has not answered: open ones, and those given up before."""
        past = (query for query in self.hop.past if not query.is_answered and query.server == server)
        return [*past, *(query for query in self.open_queries if query.server == server)]

    def silent_for_ns(self, server: Server) -> int:
        """For how long this server has said nothing."""
        return max(map(self.silence_ns, self.asked_of(server)), default=0)

    @property
    def has_answers(self) -> bool:
        """Whether its servers have answered the question, in some way that did not suffice."""
        return any(query.is_answered for query in self.hop.past)


def behind(case: LookupCase) -> Behind | None:
    """The last hop that waits for something; None when our lookup does not, or one in between is stuck."""
    chain = case.situation.chain
    if not chain or any(hop.is_stopped for hop in chain):
        return None
    first = chain[0]
    if first.asked_at.startswith(("/", "@")):
        waited_ns = None if case.lookup.status == "ok" else case.elapsed_ns
    else:
        waiting = [
            query
            for query in case.sent
            if query.server.address == first.asked_at and case.is_open_question(query)
        ]
        waited_ns = max(map(case.waited_ns, waiting), default=None)
    if waited_ns is None or waited_ns < WORTH_SAYING_NS:
        return None
    hops = [Behind(hop, waited_ns, case.at_ns) for hop in reversed(chain)]
    # Of one that was found late nothing may be known: then the one before waits, and that is known.
    return next((found for found in hops if found.open_queries or unanswered_tls(found)), None)


def is_overdue(found: Behind, case: LookupCase) -> bool:
    """Whether one of its questions, or ours to it, has timed out: before that the answer may just be slow."""
    own = any(
        query.attempts > 1 or found.silence_ns(query) >= UPSTREAM_TIMEOUT_NS for query in found.open_queries
    )
    return (
        own
        or any(not query.is_answered for query in found.hop.past)
        or any(map(case.was_given_up, case.silent))
    )


def is_at_work(case: LookupCase) -> bool:
    """Whether the last hop waits for its own servers: whoever asks it need not look for the fault there."""
    return behind(case) is not None


def asked(case: LookupCase) -> list[Evidence]:
    """Our own question, and each hop on the way to the last one."""
    chain = case.situation.chain
    first = chain[0]
    told = [no_reply(case, server) for server in case.servers if server.address == first.asked_at] or [
        _waits_at(case, first)
    ]
    for hop in chain:
        name = RESOLVED if hop.is_resolved else shown_text(hop.name or "a daemon")
        text = f"{shown_text(hop.asked_at)} is {name} (process {hop.pid}) on this host"
        numbers: Numbers = {"asked_at": shown_text(hop.asked_at), "pid": hop.pid, "name": name}
        told.append(Evidence("hop_found", text, numbers))
    return told


def _waits_at(case: LookupCase, hop: Hop) -> Evidence:
    path, elapsed_ns = shown_text(hop.asked_at), case.elapsed_ns
    verb = "waits" if case.is_open else "waited"
    text = f"the program {verb} for {path} for {case.lasted(elapsed_ns)}"
    return Evidence("unix_peer_waited_for", text, {"path": path, "elapsed_ms": milliseconds(elapsed_ns)})


# Its questions.


class Silence(NamedTuple):
    """The servers that do not answer a daemon, and how sure it is that our lookup waits for them."""

    servers: list[Server]
    text: str
    confidence: Literal["confirmed", "likely"]


def silence_of(found: Behind, case: LookupCase) -> Silence:
    """Of a daemon that has open questions."""
    silent = servers_of(found)
    is_sure = found.hop.is_joined and is_overdue(found, case) and not found.has_answers
    waited = seconds(max(map(found.silent_for_ns, silent)))
    text = f"{listing(map(server_text, silent))} has not answered it for {waited}"
    return Silence(silent, text, "confirmed" if is_sure else "likely")


def upstream_silence(found: Behind) -> list[Evidence]:
    """Each server that has not answered the hop."""
    return [_silence(found, server) for server in servers_of(found)]


def servers_of(found: Behind) -> list[Server]:
    """Whom it waits for, in order."""
    return list(dict.fromkeys(query.server for query in found.open_queries))


def _silence(found: Behind, server: Server) -> Evidence:
    queries = found.asked_of(server)
    waited_ns = found.silent_for_ns(server)
    sent = sum(query.attempts for query in queries)
    names = listing(sorted({shown(query.name) for query in queries if query.name is not None}) or ["a name"])
    verb = "has not answered" if found.hop.is_joined else "has answered nothing of what is open, such as"
    count = f", sent {times(sent)}" if sent > 1 else ""
    return Evidence(
        "upstream_no_reply",
        f"{server_text(server)} {verb} {found.text} for {names}, for {seconds(waited_ns)}{count}",
        {
            "server": server.address,
            "port": server.port,
            "pid": found.hop.pid,
            "waited_ms": milliseconds(waited_ns),
            "queries": len(queries),
            "sent": sent,
            "joined": found.hop.is_joined,
        },
    )


def not_joined(found: Behind) -> list[Evidence]:
    """What is missing to be sure that its questions are for our name."""
    if found.hop.is_joined:
        return []
    text = f"not seen: that {found.text} asks for this very name; it may wait on somebody else's behalf"
    return [Evidence("probe_missing", text, {"pid": found.hop.pid})]


# Its encrypted connections.


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A connection for DNS over TLS on which nothing comes."""

    connect: HopConnect
    phase: str  # syn, hello, answer: what there is no answer to
    waited_ns: int

    @property
    def what(self) -> str:
        """In words."""
        return TLS_SILENCE[self.phase].format(peer=self.connect.server.text)


def unanswered_tls(found: Behind) -> list[Unanswered]:
    """Those of the hop's connections to port 853 that lead nowhere."""
    return [told for one in found.hop.connects if (told := _unanswered(found, one)) is not None]


def _unanswered(found: Behind, connect: HopConnect) -> Unanswered | None:
    if connect.server.port != 853:  # noqa: PLR2004 - DNS over TLS
        return None
    if not connect.is_up:
        since_ns = found.waited_ns if connect.begun_ns is None else found.at_ns - connect.begun_ns
        return Unanswered(connect, "syn", max(0, since_ns))
    if connect.hello_ns is not None:
        return Unanswered(connect, "hello", max(0, found.at_ns - connect.hello_ns))
    if not connect.is_silent or connect.sent_ago_ns is None:
        return None
    if not connect.bytes_received:
        return Unanswered(connect, "hello", connect.sent_ago_ns)
    return Unanswered(connect, "answer", min(connect.sent_ago_ns, connect.received_ago_ns or 0))


def is_overdue_tls(found: Behind, worst: Unanswered) -> bool:
    """Whether an answer is overdue: after a second the kernel sends a SYN again."""
    if worst.phase == "syn" and not worst.connect.retransmits:
        return False
    return found.waited_ns >= A_SECOND_NS and worst.waited_ns >= A_SECOND_NS // 2


def tls_evidence(found: Behind, one: Unanswered) -> Evidence:
    """What the connection has seen so far."""
    connect, peer = one.connect, one.connect.server.text
    numbers: Numbers = {
        "server": connect.server.address,
        "port": connect.server.port,
        "pid": found.hop.pid,
        "waited_ms": milliseconds(one.waited_ns),
        "retransmits": connect.retransmits,
        "bytes_sent": connect.bytes_sent,
        "bytes_received": connect.bytes_received,
    }
    age = seconds(one.waited_ns)
    if one.phase == "syn":
        count = (connect.retransmits or 0) + 1
        plural = "its SYN was sent once" if count == 1 else f"its SYN was sent {times(count)}"
        return Evidence(
            "syn_retransmitted",
            f"{found.text} connects to {peer} for {age}; {plural}, none answered",
            numbers,
        )
    if one.phase == "hello":
        text = f"{peer} took the connection of {found.text}, and has not answered its TLS hello for {age}"
        return Evidence("dot_hello_unanswered", text, numbers)
    text = f"the TLS session of {found.text} with {peer} is up, and nothing has come on it for {age}"
    return Evidence("dot_silent", text, numbers)
