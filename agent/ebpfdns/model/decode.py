"""Bytes from the kernel become facts.

Owns: the meaning of each field of bpf/events.h. Must not know: where the bytes come from, or time passing.
Every function takes bytes and returns a fact; `DecodeError` when the bytes are no such struct.
"""

from __future__ import annotations

import ipaddress
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ebpfdns.model import boundary, dns_names
from ebpfdns.model.boundary import Api, Attempt, ConnectFlag, GoErrorFlag, LookupFlag, QueryFlag, Status
from ebpfdns.model.facts import (
    AttemptWord,
    Connect,
    GoError,
    Lookup,
    LoopKind,
    ProcessEvent,
    Query,
    Server,
    StatusWord,
    Wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Word = TypeVar("Word", bound=object)

AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
NETWORKS: dict[int, Literal["ipv4", "ipv6", "unix"]] = {AF_UNIX: "unix", AF_INET: "ipv4", AF_INET6: "ipv6"}
TRANSPORTS: dict[int, Literal["tcp", "udp"]] = {6: "tcp", 17: "udp"}
TCP_STATES = {
    1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 5: "FIN_WAIT2", 6: "TIME_WAIT",
    7: "CLOSE", 8: "CLOSE_WAIT", 9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING",
}  # fmt: skip
LOOPS: dict[int, LoopKind] = {
    **dict.fromkeys((boundary.WaitKind.EPOLL_WAIT, boundary.WaitKind.EPOLL_PWAIT), "epoll"),
    boundary.WaitKind.EPOLL_PWAIT2: "epoll",
    **dict.fromkeys((boundary.WaitKind.POLL, boundary.WaitKind.PPOLL), "poll"),
    **dict.fromkeys((boundary.WaitKind.SELECT, boundary.WaitKind.PSELECT6), "select"),
}
#: of struct wait before it knew of event loops: recordings of that time end here
OLD_WAIT_BYTES = 40
WAITS: dict[int, str] = {kind: kind.name.lower() for kind in boundary.WaitKind}
APIS: dict[int, str] = {api: api.name.lower() for api in Api}
STATUSES: dict[int, StatusWord] = {
    Status.IN_FLIGHT: "in_flight",
    Status.OK: "ok",
    Status.FAILED: "failed",
    Status.ABANDONED: "abandoned",
    Status.UNSEEN: "unseen",
}
#: made by goroutines
GO_APIS = frozenset({Api.GO, Api.CGO})
ATTEMPTS: dict[int, AttemptWord | None] = {
    Attempt.NONE: None,
    Attempt.RUNNING: "running",
    Attempt.OK: "ok",
    Attempt.FAILED: "failed",
    Attempt.RETURNED: "returned",
}
#: getaddrinfo's hints may say anything; these are the families there are
FAMILIES: dict[int, Literal["inet", "inet6", "unspec"]] = {0: "unspec", AF_INET: "inet", AF_INET6: "inet6"}


class DecodeError(ValueError):
    """These bytes are not what the header describes."""


@lru_cache(maxsize=4096)
def address_text(family: int, raw: bytes) -> str | None:
    """An address as text; None for a family without addresses."""
    if family == AF_INET:
        return ".".join(map(str, raw[:4]))
    if family == AF_INET6:
        return str(ipaddress.IPv6Address(raw[:16]))
    return None


def frame(raw: bytes) -> Lookup | Connect | ProcessEvent:
    """A frame of the ring buffer, by its first word."""
    if len(raw) < 4:  # noqa: PLR2004 - the size of that word
        raise DecodeError(f"a frame of {len(raw)} bytes")
    kind = int.from_bytes(raw[:4], "little")
    decoder = DECODERS.get(kind)
    if decoder is None:
        raise DecodeError(f"a frame of kind {kind}")
    fact = decoder(raw)
    if not isinstance(fact, ProcessEvent) and fact.status == "in_flight":
        raise DecodeError("the end of something that is in flight")
    return fact


def lookup(raw: bytes | memoryview) -> Lookup:
    """A struct lookup, with as many queries as it says."""
    head = _unpack(boundary.LOOKUP, raw)
    flags = head.flags
    is_go = head.api in GO_APIS
    count = min(head.query_count, boundary.MAX_QUERIES)
    places = [boundary.LOOKUP.size + i * boundary.QUERY.size for i in range(count)]
    parts = [_unpack(boundary.QUERY, raw, at) for at in places]
    if is_go:  # without a time it is a free place
        parts = sorted((part for part in parts if part.sent_ns), key=lambda part: part.sent_ns)
    queries = tuple(map(_query, parts))
    name, address = _name(head)
    is_earlier = bool(flags & LookupFlag.BEFORE_ATTACH)  # where its arguments lie was not seen
    return Lookup(
        key=head.key,
        start_ns=head.start_ns,
        pid=head.pid,
        tid=head.tid,
        host_pid=head.host_pid,
        api=_word(APIS, head.api, "api"),
        status=_word(STATUSES, head.status, "status"),
        name=name,
        name_cut=bool(flags & LookupFlag.NAME_CUT),
        address=address,
        end_ns=head.end_ns or None,
        code=head.code if flags & LookupFlag.CODE_IS_KNOWN and not is_go else None,
        family=None if is_earlier or head.api == Api.WIRE else FAMILIES.get(head.family),
        service=None if is_go else _text(head.service) or None,
        comm=_text(head.comm),
        queries=queries,
        more_queries=head.more_queries,
        wrong_ids=head.wrong_ids,
        wrong_questions=head.wrong_questions,
        wrong_senders=head.wrong_senders,
        stray_sender=_stray_sender(head),
        addresses=_addresses(head),
        more_addresses=0 if is_go and head.status == Status.FAILED else head.more_addresses,
        nested_calls=head.nested_calls,
        descriptor_error=head.descriptor_error or None,
        socket_closed=bool(flags & LookupFlag.SOCKET_CLOSED),
        may_be_missed=bool(flags & LookupFlag.MAY_BE_MISSED),
        answer_unread=bool(flags & LookupFlag.ANSWER_UNREAD),
        is_supporting=bool(flags & LookupFlag.SUPPORTING),
        before_attach=is_earlier,
        goroutine_id=(_go_part(head).goroutine or None) if is_go else None,
        go_error=_go_error(head) if is_go and head.status == Status.FAILED else None,
    )


def _go_part(head: Any) -> Any:  # noqa: ANN401 - tuples of boundary.LOOKUP and boundary.GO_PART
    return boundary.GO_PART.unpack(head.service)


def _go_error(head: Any) -> GoError | None:  # noqa: ANN401 - a tuple of boundary.LOOKUP
    """What its DNSError says; None when it was not readable."""
    if not head.flags & LookupFlag.CODE_IS_KNOWN:
        return None
    return GoError(
        text=head.addresses[: min(head.more_addresses, boundary.GO_ERROR_BYTES)],
        server=_text(_go_part(head).server) or None,
        is_cut=bool(head.flags & LookupFlag.ERROR_CUT),
        is_timeout=bool(head.code & GoErrorFlag.IS_TIMEOUT),
        is_temporary=bool(head.code & GoErrorFlag.IS_TEMPORARY),
        is_not_found=bool(head.code & GoErrorFlag.IS_NOT_FOUND),
    )


def open_call(key: int, raw: bytes, name: bytes | None, thread_name: bytes | None) -> Lookup:
    """A struct call: a lookup in flight that has asked nobody yet. Its name was read from memory."""
    seen = _unpack(boundary.CALL, raw)
    is_go = seen.api in GO_APIS
    return Lookup(
        key=key,
        start_ns=seen.start_ns,
        pid=seen.pid,
        tid=seen.tid,
        host_pid=boundary.go_host_pid(key) if is_go else (key & ~boundary.EARLIER_BIT) >> 32,
        api=_word(APIS, seen.api, "api"),
        status="in_flight",
        name=None if seen.name_size and not is_go else name,  # a reverse lookup has none
        comm=thread_name or b"",
        nested_calls=seen.nested_calls,
        descriptor_error=seen.descriptor_error or None,
        before_attach=bool(seen.is_earlier),
        goroutine_id=seen.hints if is_go else None,
    )


def connect(raw: bytes | memoryview) -> Connect:
    """A struct connect."""
    seen = _unpack(boundary.CONNECT, raw)
    family = _word(NETWORKS, seen.family, "family")
    is_unix = family == "unix"
    address = address_text(seen.family, seen.address)
    has_lookup = bool(seen.flags & ConnectFlag.HAS_LOOKUP)
    return Connect(
        key=seen.key,
        start_ns=seen.start_ns,
        pid=seen.pid,
        tid=seen.tid,
        host_pid=seen.host_pid,
        status=_word(STATUSES, seen.status, "status"),
        server=Server(address, seen.port) if address is not None else None,
        path=_path(seen) if is_unix else None,
        family=family,
        transport="unix" if is_unix else TRANSPORTS.get(seen.transport),
        end_ns=seen.end_ns or None,
        error=seen.error or None,
        fd=seen.fd,
        comm=_text(seen.comm),
        in_lookup=bool(seen.flags & ConnectFlag.IN_LOOKUP),
        non_blocking=bool(seen.flags & ConnectFlag.NON_BLOCKING),
        refused_here=bool(seen.flags & ConnectFlag.REFUSED_HERE),
        tcp_state=TCP_STATES.get(seen.tcp_state),
        retransmits=seen.retransmits,
        lookup_key=seen.lookup_key if has_lookup else None,
        lookup_start_ns=seen.lookup_start_ns if has_lookup else None,
        lookup_name=_text(seen.lookup_name) if has_lookup else None,
        is_tls=bool(seen.flags & ConnectFlag.IS_TLS),
        is_supporting=bool(seen.flags & ConnectFlag.SUPPORTING),
        before_attach=bool(seen.flags & ConnectFlag.BEFORE_ATTACH),
    )


def wait(raw: bytes | memoryview | None) -> Wait | None:
    """Struct wait; None stays None."""
    if raw is None:
        return None
    padded = bytes(raw).ljust(boundary.WAIT.size, b"\0") if len(raw) == OLD_WAIT_BYTES else raw
    seen = _unpack(boundary.WAIT, padded)
    came_back = seen.last_return_ns and seen.last_fd >= 0
    has_loop = seen.returns >= boundary.LOOP_RETURNS
    return Wait(
        syscall=_word(WAITS, seen.wait_kind, "wait") if seen.start_ns else None,
        since_ns=seen.start_ns or None,
        last_loop=_word(WAITS, seen.last_kind, "wait") if came_back else None,
        last_loop_fd=seen.last_fd if came_back else None,
        last_loop_ns=seen.last_return_ns if came_back else None,
        loop=_word(LOOPS, seen.last_kind, "wait") if has_loop else None,
        loop_return_ns=seen.last_return_ns if has_loop else None,
        is_in_loop=is_in_loop(seen),
        pid=seen.pid,
        tid=seen.tid,
    )


def is_in_loop(seen: Any) -> bool:  # noqa: ANN401 - a tuple of boundary.WAIT
    """Whether a thread waits in its loop: in an epoll instance; without one, in poll or select of several."""
    if not seen.start_ns:
        return False
    return bool(seen.fd >= 0 or (seen.fd == boundary.WAIT_ON_SEVERAL and seen.last_fd < 0))


def process_event(raw: bytes | memoryview) -> ProcessEvent:
    """A struct process_change."""
    seen = _unpack(boundary.PROCESS_CHANGE, raw)
    if seen.change == boundary.ProcessChange.FORKED:
        return ProcessEvent("forked", seen.at_ns, seen.pid, seen.parent_pid)
    if seen.change == boundary.ProcessChange.EXECED:
        return ProcessEvent("execed", seen.at_ns, seen.pid)
    raise DecodeError(f"a process change of kind {seen.change}")


DECODERS: dict[int, Callable[[bytes], Lookup | Connect | ProcessEvent]] = {
    boundary.FrameKind.LOOKUP: lookup,
    boundary.FrameKind.CONNECT: connect,
    boundary.FrameKind.PROCESS: process_event,
}


def _query(seen: Any) -> Query:  # noqa: ANN401 - a tuple of boundary.QUERY
    was_sent = not seen.flags & QueryFlag.NO_MESSAGE
    if seen.attempt and not was_sent:
        return _unsent_attempt(seen)
    is_answered = bool(seen.flags & QueryFlag.ANSWERED)
    is_cut = bool(seen.flags & QueryFlag.NAME_CUT)
    whole = was_sent and not is_cut
    address = address_text(seen.family, seen.server)
    if address is None:
        raise DecodeError(f"a question to an address of family {seen.family}")
    return Query(
        server=Server(address, seen.server_port),
        transport=_word(TRANSPORTS, seen.transport, "transport") if seen.transport else None,
        sent_ns=seen.sent_ns,
        was_sent=was_sent,
        socket=seen.socket,
        name=dns_names.presentation(seen.name[: seen.name_bytes]) if whole else None,
        type=seen.type if was_sent else None,
        id=seen.id if was_sent else None,
        attempts=seen.attempts,
        resent_ns=seen.resent_ns or None,
        reply_ns=seen.reply_ns if is_answered else None,
        rcode=seen.rcode if is_answered else None,
        answers=seen.answers if is_answered else None,
        truncated=bool(seen.flags & QueryFlag.TRUNCATED),
        settled=bool(seen.flags & QueryFlag.SETTLED),
        has_edns=bool(seen.flags & QueryFlag.EDNS),
        reply_bytes=(seen.reply_bytes or None) if is_answered else None,
        late_ns=_unread_reply_ns(seen, QueryFlag.LATE),
        dropped_ns=_unread_reply_ns(seen, QueryFlag.REPLY_REFUSED),
        error=seen.error or None,
        local_port=seen.local_port or None,
        attempt=_word(ATTEMPTS, seen.attempt, "attempt"),
    )


def _unsent_attempt(seen: Any) -> Query:  # noqa: ANN401 - a tuple of boundary.QUERY
    """An attempt of Go's resolver that has sent nothing that was seen: what the resolver itself was told."""
    address, port = address_text(seen.family, seen.server), seen.server_port
    name: bytes | None = seen.name[: seen.name_bytes]
    if seen.family == AF_INET6:  # "[2001:db8::1]:53" takes the place of the name
        text, _, digits = _text(seen.name).decode("ascii", "replace").rpartition(":")
        address, port, name = text.strip("[]"), int(digits) if digits.isdecimal() else 0, None
    return Query(
        server=Server(address or "", port & 0xFFFF),
        transport=None,
        sent_ns=seen.sent_ns,
        was_sent=False,
        name=None if not name or seen.flags & QueryFlag.NAME_CUT else dns_names.from_text(name),
        type=seen.type,
        error=seen.error or None,
        attempt=_word(ATTEMPTS, seen.attempt, "attempt"),
    )


def _unread_reply_ns(seen: Any, flag: QueryFlag) -> int | None:  # noqa: ANN401 - a tuple of boundary.QUERY
    """When a reply came that the program cannot have read; a later one that it could stands there instead."""
    is_told = seen.flags & flag and not seen.flags & QueryFlag.ANSWERED
    return seen.reply_ns if is_told else None


def _name(head: Any) -> tuple[bytes | None, str | None]:  # noqa: ANN401 - a tuple of boundary.LOOKUP
    """The name asked for, or the address of a reverse lookup."""
    raw = head.name[: head.name_bytes]
    if head.flags & LookupFlag.NAME_IS_ADDRESS:
        return None, _reverse_address(head.api, head.family, raw)
    if head.flags & LookupFlag.NAME_IS_WIRE:
        return dns_names.presentation(raw), None
    if head.flags & LookupFlag.NAME_UNREAD:
        return None, None
    return (raw or None), None


def _reverse_address(api: int, family: int, raw: bytes) -> str | None:
    """What gethostbyaddr was given is a bare address; getnameinfo, a sockaddr (family, port, address)."""
    if api != Api.GETNAMEINFO:
        return address_text(family, raw) if len(raw) >= (4 if family == AF_INET else 16) else None
    if len(raw) < 8:  # noqa: PLR2004 - up to the end of an IPv4 address
        return None
    family = int.from_bytes(raw[:2], "little")
    body = raw[4:8] if family == AF_INET else raw[8:24]
    return address_text(family, body) if len(body) == (4 if family == AF_INET else 16) else None


def _addresses(head: Any) -> tuple[str, ...]:  # noqa: ANN401 - a tuple of boundary.LOOKUP
    if head.api in GO_APIS and head.status == Status.FAILED:
        return ()  # the error's text stands there
    count = min(head.address_count, boundary.MAX_ADDRESSES)
    found = (
        address_text(head.address_families[i], head.addresses[16 * i : 16 * i + 16]) for i in range(count)
    )
    return tuple(text for text in found if text is not None)


def _stray_sender(head: Any) -> str | None:  # noqa: ANN401 - a tuple of boundary.LOOKUP
    """Who sent the latest reply from elsewhere; its place may be taken by an address of the result."""
    at = boundary.STRAY_SENDER
    if not head.wrong_senders or head.address_count > at:
        return None
    return address_text(head.address_families[at], head.addresses[16 * at : 16 * at + 16])


def _path(seen: Any) -> bytes:  # noqa: ANN401 - a tuple of boundary.CONNECT
    """A socket's path ends at its first NUL; an abstract name begins with one and may hold more."""
    raw: bytes = seen.path[: seen.path_bytes]
    return raw if seen.flags & ConnectFlag.PATH_IS_ABSTRACT else raw.split(b"\0", 1)[0]


def _text(raw: bytes) -> bytes:
    """Up to the first NUL."""
    return raw.split(b"\0", 1)[0]


def _word(words: Mapping[int, Word], number: int, what: str) -> Word:
    if number not in words:
        raise DecodeError(f"{what} {number}")
    return words[number]


def _unpack(layout: boundary.Layout, raw: bytes | memoryview, offset: int = 0) -> Any:  # noqa: ANN401
    try:
        return layout.unpack(raw, offset)
    except struct.error as error:
        raise DecodeError(f"{layout.name}: {error}") from error
