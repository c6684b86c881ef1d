"""The chain behind a lookup: joined by sockets and questions, and by nothing else."""

from __future__ import annotations

from typing import Any

import facts
import pytest
from facts import NAME, SERVER, at, number, query

from ebpfdns.correlate.chains import Around, chain_of
from ebpfdns.model import decode
from ebpfdns.model.facts import Hop, Lookup, Server

STUB, LOCAL = "127.0.0.53", "127.0.0.1"
RESOLVED, DNSMASQ = 412, 99
RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
OTHER_NAME = b"\5other\3lab\4test\0"
SUPPORTING = number("LOOKUP_SUPPORTING") | number("LOOKUP_NAME_IS_WIRE")


def owned_by(pid: int) -> dict[str, Any]:
    return {"listening": True, "owner": {"pid": pid, "name": "daemon"}, "rx_queue_bytes": 0}


def asked(start: float = 0.002, **fields: Any) -> bytes:
    """A question of a daemon's own."""
    question = query(sent=start, **fields)
    return facts.wire_lookup(start, question, pid=RESOLVED, host_pid=RESOLVED, flags=SUPPORTING)


def daemon(*lookups: bytes, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"name": "systemd-resolve", "state": "S", "syscall": "epoll_wait"}
    values |= {"sockets": [], "lookups": list(lookups), "connects": [], "settings": None, "listeners": {}}
    return values | fields


def ours(*servers: str, **fields: Any) -> Lookup:
    return decode.lookup(facts.lookup(0, *(query(server, **fields) for server in servers or (STUB,))))


def behind(lookup: Lookup, *, now: float = 1.0, **fields: Any) -> tuple[Hop, ...]:
    """Its chain, when 127.0.0.53 is systemd-resolved's."""
    around: dict[str, Any] = {
        "daemons": {str(RESOLVED): daemon(asked())},
        "process": {"listeners": {STUB: owned_by(RESOLVED)}, "sockets": []},
        "thread": {"sockets": []},
    }
    return chain_of(lookup, Around(at(now), **(around | fields)))


def test_the_very_question() -> None:
    """What the owner of the stub asks for the same name is joined; other questions are counted only."""
    other = asked(0.003, name=OTHER_NAME, name_bytes=len(OTHER_NAME), id=8)
    (hop,) = behind(ours(), daemons={str(RESOLVED): daemon(asked(), other)})
    assert (hop.role, hop.pid, hop.asked_at, hop.is_joined) == ("stub", RESOLVED, STUB, True)
    assert [(one.name, one.server) for one in hop.queries] == [(NAME + b".", Server(SERVER, 53))]
    assert hop.others_open == 1


def test_another_question_is_not_joined() -> None:
    """A daemon that asks for other names only is told so: it waits, but perhaps not for us."""
    other = asked(0.003, name=OTHER_NAME, name_bytes=len(OTHER_NAME))
    (hop,) = behind(ours(), daemons={str(RESOLVED): daemon(other)})
    assert (hop.is_joined, len(hop.queries)) == (False, 1)


def test_redacted_names_are_joined() -> None:
    """A name that was hashed is joined with the same name, hashed alike."""

    def redact(lookup: Lookup) -> Lookup:
        from ebpfdns.correlate.redaction import redacted  # noqa: PLC0415 - only here

        return redacted(lookup, "key")

    (hop,) = behind(redact(ours()), redact=redact)
    assert hop.is_joined
    assert (hop.queries[0].name or b"").startswith(b"redacted-")


def test_over_a_local_socket() -> None:
    """Who waits at systemd-resolved's socket is joined by the name that it has given."""
    peer = {"path": RESOLVE, "owner": {"pid": RESOLVED}}
    thread = {"sockets": [{"inode": 7, "kind": "unix", "peer": peer}]}
    (hop,) = behind(decode.lookup(facts.lookup(0)), thread=thread)
    assert (hop.role, hop.asked_at, hop.is_joined) == ("stub", RESOLVE, True)


def test_a_socket_of_no_name_service_leads_nowhere() -> None:
    """What a program says to any other local socket is none of a resolver's business."""
    peer = {"path": "/run/dbus/system_bus_socket", "owner": {"pid": RESOLVED}}
    thread = {"sockets": [{"inode": 7, "kind": "unix", "peer": peer}]}
    assert behind(decode.lookup(facts.lookup(0)), thread=thread) == ()


@pytest.mark.parametrize(
    "listeners",
    [{}, {STUB: owned_by(RESOLVED) | {"owner": None}}, {STUB: owned_by(77)}, {LOCAL: owned_by(RESOLVED)}],
)
def test_no_owner_no_chain(listeners: dict[str, Any]) -> None:
    """Nobody there, nobody found, one that is not followed, another address: nothing is guessed."""
    assert behind(ours(), process={"listeners": listeners}) == ()


def test_a_server_in_the_program_itself_is_not_behind_it() -> None:
    """Who asks itself waits for its own answer: its question is not taken for that of a forwarder."""
    lookup = ours()
    listeners = {"listeners": {STUB: owned_by(lookup.pid)}, "sockets": []}
    assert behind(lookup, daemons={str(lookup.pid): daemon(asked())}, process=listeners) == ()


def test_two_ways_at_once() -> None:
    """A lookup that waits for a local daemon and for a server elsewhere does not wait for one chain."""
    assert behind(ours(STUB, SERVER)) == ()


def test_what_is_answered_is_not_waited_for() -> None:
    """An answered question leads nowhere."""
    assert behind(ours(reply=0.5)) == ()


def test_second_hop() -> None:
    """systemd-resolved that asks dnsmasq: both, in order, and each with its own questions."""
    at_dnsmasq = facts.wire_lookup(0.003, query(sent=0.003), pid=DNSMASQ, flags=SUPPORTING)
    first = daemon(asked(0.002, server=facts.ADDRESS(LOCAL).packed), listeners={LOCAL: owned_by(DNSMASQ)})
    found = {str(RESOLVED): first, str(DNSMASQ): daemon(at_dnsmasq, name="dnsmasq")}
    hops = behind(ours(), daemons=found)
    assert [(hop.role, hop.pid, hop.asked_at) for hop in hops] == [
        ("stub", RESOLVED, STUB),
        ("upstream", DNSMASQ, LOCAL),
    ]
    assert all(hop.is_joined for hop in hops)


def test_a_loop_ends() -> None:
    """Two daemons that ask each other are told once each."""
    first = daemon(asked(0.002, server=facts.ADDRESS(LOCAL).packed), listeners={LOCAL: owned_by(DNSMASQ)})
    second = daemon(asked(0.003, server=facts.ADDRESS(STUB).packed), listeners={STUB: owned_by(RESOLVED)})
    hops = behind(ours(), daemons={str(RESOLVED): first, str(DNSMASQ): second})
    assert [hop.pid for hop in hops] == [RESOLVED, DNSMASQ]


def test_sockets_tell_of_what_left_before() -> None:
    """Of a daemon that was found late its sockets are known: to whom they go, and nothing of names."""
    sockets = [{"kind": "udp", "fd": 5, "inode": 3, "remote": [SERVER, 53]}]
    (hop,) = behind(ours(), daemons={str(RESOLVED): daemon(sockets=sockets)})
    (question,) = hop.queries
    assert (question.server, question.name, question.sent_is_known) == (Server(SERVER, 53), None, False)
    assert not hop.is_joined


def tcp(state: str, **told: Any) -> dict[str, Any]:
    return {"kind": "tcp", "fd": 9, "inode": 3, "remote": [SERVER, 853], "state": state, "tcp": told}


def test_a_connection_has_both_views() -> None:
    """A TLS connection is what the kernel has seen of it, and what a look at its socket tells."""
    raw = facts.connect(0.01, port=853, address=facts.ADDRESS(SERVER).packed, fd=0, pid=RESOLVED)
    socket = tcp("SYN_SENT", retransmits_total=2, bytes_sent=0, bytes_received=0, last_sent_ms=5)
    settings = {"dns_over_tls": None, "link_dns_over_tls": ["opportunistic", "yes"], "dnssec": "no"}
    found = daemon(connects=[raw], sockets=[socket], settings=settings)
    (hop,) = behind(ours(), daemons={str(RESOLVED): found})
    (one,) = hop.connects
    assert (one.server, one.is_up, one.begun_ns, one.retransmits) == (Server(SERVER, 853), False, at(0.01), 2)
    assert (one.sent_ago_ns, one.received_ago_ns) == (None, None)
    assert (hop.dns_over_tls, hop.dnssec) == ("yes", "no")


def test_a_hello_without_an_answer() -> None:
    """A connection that is up, and whose first TLS message has no answer, is told with its time."""
    raw = facts.connect(
        0.2, port=853, address=facts.ADDRESS(SERVER).packed, flags=number("CONNECT_IS_TLS"), fd=9
    )
    socket = tcp("ESTABLISHED", bytes_sent=300, bytes_received=0, last_sent_ms=800)
    (hop,) = behind(ours(), daemons={str(RESOLVED): daemon(connects=[raw], sockets=[socket])})
    (one,) = hop.connects
    assert (one.is_up, one.begun_ns, one.hello_ns, one.sent_ago_ns) == (True, None, at(0.2), 800_000_000)


def test_what_it_tried_before_is_remembered() -> None:
    """Questions for the name that are over belong to the hop: those since the lookup began."""
    ended = decode.lookup(facts.wire_lookup(0.1, query(sent=0.1), end=0.9, pid=RESOLVED))
    before = decode.lookup(facts.wire_lookup(-9, query(sent=-9), end=-8, pid=RESOLVED))
    (hop,) = behind(ours(), past={RESOLVED: [before, ended]})
    assert [one.sent_ns for one in hop.past] == [at(0.1)]


def test_garbage_of_a_recording_is_passed_over() -> None:
    """Bytes that are no struct lookup make no hop fail."""
    (hop,) = behind(ours(), daemons={str(RESOLVED): daemon(b"garbage")})
    assert hop.queries == ()


@pytest.mark.parametrize(
    ("sent_ms", "received_ms", "age", "expected"),
    [(900, 880, 1.0, True), (900, 90, 1.0, False), (60_000, 60_000, 1.0, False), (2176, 2176, 2.02, True)],
)
def test_a_silent_session(sent_ms: int, received_ms: int, age: float, expected: bool) -> None:  # noqa: FBT001
    """A session is silent when our question may have left on it, and nothing has come since."""
    socket = tcp("ESTABLISHED", bytes_sent=500, bytes_received=1270, last_sent_ms=sent_ms)
    socket["tcp"]["last_received_ms"] = received_ms
    (hop,) = behind(ours(), now=age, daemons={str(RESOLVED): daemon(sockets=[socket])})
    assert hop.connects[0].is_silent is expected
