"""Bytes from the kernel become facts: what each field means, and what is refused."""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.exception
import dns.name
import header
import pytest
from header import lookup_frame, number, packed
from hypothesis import example, given
from hypothesis import strategies as st

from ebpfdns.model import boundary, decode, dns_names
from ebpfdns.model.boundary import Api
from ebpfdns.model.facts import Connect, Lookup, ProcessEvent, Server, Wait

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
TCP, UDP = 6, 17
U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
S32 = st.integers(-(1 << 31), (1 << 31) - 1)
STATUSES = ("in_flight", "ok", "failed", "abandoned", "unseen")
WWW = b"\3www\7example\0"
STRAY = ("wrong_ids", "wrong_questions", "wrong_senders")


def flags(prefix: str, **chosen: bool) -> int:
    """The header's flags of these names, combined."""
    return sum(number(prefix + name.upper()) for name, is_set in chosen.items() if is_set)


def address_of(family: int, raw: bytes) -> str:
    size, kind = (4, ipaddress.IPv4Address) if family == AF_INET else (16, ipaddress.IPv6Address)
    return str(kind(raw[:size]))


def shown_name(wire: bytes) -> bytes:
    return dns.name.from_wire(wire, 0)[0].to_text().encode()


@st.composite
def wire_names(draw: st.DrawFn, longest: int = 255) -> bytes:
    """Names in wire form, of any bytes."""
    labels = draw(st.lists(st.binary(min_size=1, max_size=63), max_size=8))
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return name if len(name) <= longest else b"\0"


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a struct query that was sent."""
    name = draw(wire_names(92))
    is_answered = draw(st.booleans())
    chosen = {"answered": is_answered, "truncated": draw(st.booleans()), "settled": draw(st.booleans())}
    return {
        "socket": draw(U64),
        "sent_ns": draw(U64),
        "resent_ns": draw(U64),
        "reply_ns": draw(U64),
        "server": draw(st.binary(min_size=16, max_size=16)),
        "server_port": draw(U16),
        "id": draw(U16),
        "type": draw(U16),
        "answers": draw(U16),
        "error": draw(S32),
        "family": draw(st.sampled_from((AF_INET, AF_INET6))),
        "transport": draw(st.sampled_from((TCP, UDP))),
        "attempts": draw(U8),
        "rcode": draw(U8),
        "flags": flags("QUERY_", **chosen),
        "name_bytes": len(name),
        "name": name,
    }


@st.composite
def lookups(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a struct lookup whose name is the text that a program gave."""
    name = draw(st.binary(max_size=255))
    chosen = ("name_cut", "code_is_known", "socket_closed", "may_be_missed")
    return {
        "flags": flags("LOOKUP_", **{flag: draw(st.booleans()) for flag in chosen}),
        "key": draw(U64),
        "start_ns": draw(U64),
        "end_ns": draw(U64),
        **{name: draw(U32) for name in ("pid", "tid", "host_pid", "host_tid")},
        "code": draw(S32),
        **{name: draw(U16) for name in ("family", "more_queries")},
        "name_bytes": len(name),
        "api": draw(st.sampled_from([int(api) for api in Api if api not in decode.GO_APIS])),
        "status": draw(st.integers(0, 4)),
        **{name: draw(U8) for name in ("more_addresses", "nested_calls", *STRAY)},
        "comm": draw(st.binary(max_size=15)),
        "service": draw(st.binary(max_size=31)),
        "name": name,
        "address_count": draw(st.integers(0, 8)),
        "address_families": draw(
            st.lists(st.sampled_from((AF_INET, AF_INET6)), min_size=8, max_size=8).map(bytes)
        ),
        "addresses": draw(st.binary(min_size=128, max_size=128)),
    }


def test_who_sent_what_fits_no_question():
    """The address of a stray reply is read from its place among the result's, while that is free."""
    addresses = bytes(7 * 16) + bytes([192, 0, 2, 7]) + bytes(12)
    fields = {"address_families": bytes(7) + bytes([AF_INET]), "addresses": addresses, "wrong_senders": 1}
    assert decode.lookup(lookup_frame([], **fields)).stray_sender == "192.0.2.7"
    assert decode.lookup(lookup_frame([], **fields, address_count=8)).stray_sender is None
    assert decode.lookup(lookup_frame([], **(fields | {"wrong_senders": 0}))).stray_sender is None


@pytest.mark.parametrize(
    ("flag", "field"), [("QUERY_LATE", "late_ns"), ("QUERY_REPLY_REFUSED", "dropped_ns")]
)
def test_a_reply_that_nobody_read_has_its_time(flag, field):
    """It is no answer, and a later answer takes its place."""
    unread = {"family": AF_INET, "reply_ns": 17, "flags": number(flag)}
    (found,) = decode.lookup(lookup_frame([unread])).queries
    assert (getattr(found, field), found.reply_ns, found.is_answered) == (17, None, False)
    answered = unread | {"flags": number(flag) | number("QUERY_ANSWERED"), "reply_ns": 19}
    (found,) = decode.lookup(lookup_frame([answered])).queries
    assert (getattr(found, field), found.reply_ns) == (None, 19)


@given(lookups(), st.lists(queries(), max_size=8))
def test_a_lookup_comes_back_field_by_field(fields, asked):
    """Every field of a lookup is read from the compiler's offset, and 0 and unset flags become null."""
    found = decode.lookup(lookup_frame(asked, **fields))
    for name in ("key", "start_ns", "pid", "tid", "host_pid", "more_queries", *STRAY):
        assert getattr(found, name) == fields[name], name
    assert (found.more_addresses, found.nested_calls) == (fields["more_addresses"], fields["nested_calls"])
    assert found.api == Api(fields["api"]).name.lower()
    assert found.status == STATUSES[fields["status"]]
    assert found.name == (fields["name"] or None)
    assert found.end_ns == (fields["end_ns"] or None)
    assert found.comm == fields["comm"].split(b"\0")[0]
    assert found.service == (fields["service"].split(b"\0")[0] or None)
    assert found.code == (fields["code"] if fields["flags"] & number("LOOKUP_CODE_IS_KNOWN") else None)
    for attribute in ("name_cut", "socket_closed", "may_be_missed"):
        assert getattr(found, attribute) == bool(fields["flags"] & flags("LOOKUP_", **{attribute: True}))
    families = fields["address_families"][: fields["address_count"]]
    assert found.addresses == tuple(
        address_of(family, fields["addresses"][16 * i : 16 * i + 16]) for i, family in enumerate(families)
    )
    assert len(found.queries) == len(asked)
    for query, given_fields in zip(found.queries, asked, strict=True):
        check_query(query, given_fields)


def check_query(query, fields):
    is_answered = bool(fields["flags"] & number("QUERY_ANSWERED"))
    assert query.server == Server(address_of(fields["family"], fields["server"]), fields["server_port"])
    assert query.transport == {TCP: "tcp", UDP: "udp"}[fields["transport"]]
    for name in ("socket", "sent_ns", "id", "type", "attempts"):
        assert getattr(query, name) == fields[name], name
    assert query.name == shown_name(fields["name"])
    assert (query.resent_ns, query.error) == (fields["resent_ns"] or None, fields["error"] or None)
    replied = (fields["reply_ns"], fields["rcode"], fields["answers"]) if is_answered else (None, None, None)
    assert (query.reply_ns, query.rcode, query.answers) == replied
    assert query.is_answered == is_answered
    assert query.truncated == bool(fields["flags"] & number("QUERY_TRUNCATED"))
    assert query.settled == bool(fields["flags"] & number("QUERY_SETTLED"))


@st.composite
def connects(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of a struct connect."""
    path = draw(st.binary(max_size=108))
    chosen = ("in_lookup", "non_blocking", "has_lookup")
    return {
        "kind": number("FRAME_CONNECT"),
        "flags": flags("CONNECT_", **{flag: draw(st.booleans()) for flag in chosen}),
        **{name: draw(U64) for name in ("key", "start_ns", "end_ns", "lookup_start_ns", "lookup_key")},
        **{name: draw(U32) for name in ("pid", "tid", "host_pid", "host_tid", "fd", "retransmits")},
        "error": draw(S32),
        "family": draw(st.sampled_from((AF_UNIX, AF_INET, AF_INET6))),
        "port": draw(U16),
        "transport": draw(st.sampled_from((0, TCP, UDP))),
        "status": draw(st.integers(0, 4)),
        "tcp_state": draw(st.integers(0, 12)),
        "path_bytes": len(path),
        "path": path,
        "comm": draw(st.binary(max_size=15)),
        "lookup_name": draw(st.binary(max_size=127)),
        "address": draw(st.binary(min_size=16, max_size=16)),
    }


@given(connects())
def test_a_connect_comes_back_field_by_field(fields):
    """Every field of a connect is read from the compiler's offset; it has a path or an address."""
    found = decode.connect(packed("connect", **fields))
    for name in ("key", "start_ns", "pid", "tid", "host_pid", "fd", "retransmits"):
        assert getattr(found, name) == fields[name], name
    assert found.status == STATUSES[fields["status"]]
    assert (found.end_ns, found.error) == (fields["end_ns"] or None, fields["error"] or None)
    assert found.comm == fields["comm"].split(b"\0")[0]
    is_unix = fields["family"] == AF_UNIX
    assert found.family == {AF_UNIX: "unix", AF_INET: "ipv4", AF_INET6: "ipv6"}[fields["family"]]
    assert found.path == (fields["path"].split(b"\0")[0] if is_unix else None)
    address = None if is_unix else Server(address_of(fields["family"], fields["address"]), fields["port"])
    assert found.server == address
    transport = {0: None, TCP: "tcp", UDP: "udp"}[fields["transport"]]
    assert found.transport == ("unix" if is_unix else transport)
    assert found.in_lookup == bool(fields["flags"] & number("CONNECT_IN_LOOKUP"))
    assert found.non_blocking == bool(fields["flags"] & number("CONNECT_NON_BLOCKING"))
    has_lookup = fields["flags"] & number("CONNECT_HAS_LOOKUP")
    given_by = (fields["lookup_key"], fields["lookup_start_ns"], fields["lookup_name"].split(b"\0")[0])
    assert (found.lookup_key, found.lookup_start_ns, found.lookup_name) == (
        given_by if has_lookup else (None, None, None)
    )


@given(U64, U32, U32)
def test_a_fork_and_an_exec_come_back(at_ns, pid, parent_pid):
    """A fork names parent and child, an exec the process only; no third change is known."""
    fields = {"kind": number("FRAME_PROCESS"), "at_ns": at_ns, "pid": pid, "parent_pid": parent_pid}
    forked = packed("process_change", change=number("PROCESS_FORKED"), **fields)
    execed = packed("process_change", change=number("PROCESS_EXECED"), **fields)
    assert decode.frame(forked) == ProcessEvent("forked", at_ns, pid, parent_pid)
    assert decode.frame(execed) == ProcessEvent("execed", at_ns, pid, None)
    with pytest.raises(decode.DecodeError, match="process change"):
        decode.frame(packed("process_change", change=3, **fields))


KINDS = st.sampled_from([1, 2, 3, 0, 4]).map(lambda kind: kind.to_bytes(4, "little"))


@given(st.binary(max_size=2000) | st.builds(bytes.__add__, KINDS, st.binary(max_size=2000)))
@example(b"")
@example(packed("lookup", kind=1, query_count=255))
@example(packed("lookup", kind=1, api=Api.GETNAMEINFO, flags=8, name=bytes((AF_INET6, 0)), name_bytes=12))
def test_no_bytes_break_the_decoder(raw):
    """Whatever the bytes, the answer is a fact or a DecodeError."""
    for decoder in (decode.frame, decode.lookup, decode.connect, decode.process_event):
        try:
            found = decoder(raw)
        except decode.DecodeError:
            continue
        assert isinstance(found, Lookup | Connect | ProcessEvent)


@given(st.data(), lookups(), st.lists(queries(), max_size=8))
def test_a_cut_frame_is_refused(data, fields, asked):
    """A frame that ends before its last query does is no lookup."""
    whole = lookup_frame(asked, **fields)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(decode.DecodeError):
        decode.frame(whole[:cut])


@pytest.mark.parametrize(("field", "value"), [("api", 19), ("status", 5), ("kind", 9)])
def test_unknown_numbers_are_refused(field, value):
    """A number that no enum has is not given a meaning."""
    with pytest.raises(decode.DecodeError, match=f"{field} {value}"):
        decode.frame(lookup_frame([], **{field: value}))


@pytest.mark.parametrize(("field", "value"), [("transport", 1), ("family", AF_NETLINK)])
def test_a_query_of_another_kind_is_refused(field, value):
    """A question that went neither by UDP nor by TCP, or to neither IPv4 nor IPv6, is no question."""
    query = {"family": AF_INET, "transport": UDP, field: value}
    with pytest.raises(decode.DecodeError, match=f"{field} {value}"):
        decode.frame(lookup_frame([query]))


@given(lookups(), connects())
def test_a_frame_is_read_by_its_first_word(asked, made):
    """A frame is a lookup or a connect as its kind says, and an end: what is in flight has none."""
    for raw, decoder, status in (
        (lookup_frame([], **asked), decode.lookup, asked["status"]),
        (packed("connect", **made), decode.connect, made["status"]),
    ):
        if status:
            assert decode.frame(raw) == decoder(raw)
        else:
            with pytest.raises(decode.DecodeError, match="in flight"):
                decode.frame(raw)


def test_a_connect_of_another_family_is_refused():
    """A connect to neither an IP address nor a local socket is not taken for one."""
    with pytest.raises(decode.DecodeError, match=f"family {AF_NETLINK}"):
        decode.frame(packed("connect", kind=number("FRAME_CONNECT"), family=AF_NETLINK))


def one_lookup(**fields: Any) -> Lookup:
    return decode.lookup(lookup_frame([], **fields))


def test_an_unread_name_is_null():
    """A name that could not be read from memory is null, whatever the buffer holds."""
    found = one_lookup(flags=flags("LOOKUP_", name_unread=True), name=b"left over", name_bytes=9)
    assert (found.name, found.address) == (None, None)


def test_a_cut_name_says_so():
    """A name that was longer than the buffer is given as far as it was read, and marked."""
    found = one_lookup(flags=flags("LOOKUP_", name_cut=True), name=b"a" * 255, name_bytes=255)
    assert (found.name, found.name_cut) == (b"a" * 255, True)


@given(wire_names())
def test_a_wire_lookup_shows_its_name_in_words(name):
    """The name of a lookup known from packets only is written as dnspython writes it."""
    found = one_lookup(
        api=Api.WIRE,
        flags=flags("LOOKUP_", name_is_wire=True),
        name=name,
        name_bytes=len(name),
        family=AF_INET,
    )
    assert found.name == shown_name(name)
    assert found.is_wire
    assert found.family is None


def test_a_cut_name_in_a_query_is_null():
    """A question whose name did not fit has no name, rather than half of one."""
    query = {"family": AF_INET, "transport": UDP, "name": WWW, "name_bytes": len(WWW), "type": 1}
    [whole] = one_query(query)
    [cut] = one_query(query | {"flags": number("QUERY_NAME_CUT")})
    assert (whole.name, whole.type) == (b"www.example.", 1)
    assert (cut.name, cut.type) == (None, 1)


def one_query(fields: dict[str, Any]) -> tuple[Any, ...]:
    return decode.lookup(lookup_frame([fields])).queries


def test_a_query_that_was_never_sent_has_no_message():
    """Where the kernel refused the send, there is a server and an error, but no name, type or id."""
    fields = {"family": AF_INET, "transport": UDP, "server": bytes((192, 0, 2, 1)), "error": 101, "id": 7}
    [query] = one_query(fields | {"flags": number("QUERY_NO_MESSAGE"), "name": WWW, "name_bytes": len(WWW)})
    assert (query.was_sent, query.error, query.server.address) == (False, 101, "192.0.2.1")
    assert (query.name, query.type, query.id) == (None, None, None)


def test_a_transport_that_was_not_seen_is_null():
    """Where nothing told how a question was to be sent, that is null and not the usual way."""
    [query] = one_query({"family": AF_INET, "flags": number("QUERY_NO_MESSAGE"), "error": 111})
    assert query.transport is None


V4, V6 = bytes((192, 0, 2, 7)), ipaddress.IPv6Address("2001:db8::7").packed
SOCKADDR_IN = AF_INET.to_bytes(2, "little") + b"\0\x35" + V4 + bytes(8)
SOCKADDR_IN6 = AF_INET6.to_bytes(2, "little") + b"\0\x35" + bytes(4) + V6 + bytes(4)


@pytest.mark.parametrize(
    ("api", "family", "raw", "expected"),
    [
        pytest.param("GETHOSTBYADDR", AF_INET, V4, "192.0.2.7", id="IPv4"),
        pytest.param("GETHOSTBYADDR", AF_INET6, V6, "2001:db8::7", id="IPv6"),
        pytest.param("GETHOSTBYADDR_R", AF_INET, V4[:3], None, id="too short"),
        pytest.param("GETHOSTBYADDR_R", AF_INET6, V6[:15], None, id="IPv6, too short"),
        pytest.param("GETHOSTBYADDR", AF_NETLINK, V6, None, id="no such family"),
        pytest.param("GETNAMEINFO", 0, SOCKADDR_IN, "192.0.2.7", id="sockaddr_in"),
        pytest.param("GETNAMEINFO", 0, SOCKADDR_IN6, "2001:db8::7", id="sockaddr_in6"),
        pytest.param("GETNAMEINFO", 0, SOCKADDR_IN[:7], None, id="cut sockaddr_in"),
        pytest.param("GETNAMEINFO", 0, SOCKADDR_IN6[:12], None, id="cut sockaddr_in6"),
        pytest.param("GETNAMEINFO", 0, b"\1\0/run/sock", None, id="a local socket"),
    ],
)
def test_reverse_lookups_tell_the_address(api, family, raw, expected):
    """A reverse lookup is about an address, in the form its function takes; half of one is null."""
    found = one_lookup(
        api=Api[api],
        family=family,
        flags=flags("LOOKUP_", name_is_address=True),
        name=raw,
        name_bytes=len(raw),
    )
    assert (found.name, found.address) == (None, expected)


@pytest.mark.parametrize(
    ("number_given", "expected"), [(0, "unspec"), (2, "inet"), (10, "inet6"), (99, None)]
)
def test_the_family_that_was_asked_for_is_named(number_given, expected):
    """A program may ask for any family; one that does not exist is null."""
    assert one_lookup(api=Api.GETADDRINFO, family=number_given).family == expected


def test_an_abstract_socket_keeps_its_nul_bytes():
    """An abstract name begins with a NUL byte, and others in it belong to it."""
    abstract = flags("CONNECT_", path_is_abstract=True)
    fields = {"kind": number("FRAME_CONNECT"), "family": AF_UNIX, "path": b"\0a\0b", "path_bytes": 4}
    assert decode.connect(packed("connect", flags=abstract, **fields)).path == b"\0a\0b"


@given(U64, U64, U32, st.binary(max_size=20))
def test_a_call_without_a_record_is_a_lookup_in_flight(start_ns, key, tid, name):
    """A call that has asked nobody is known by what memory says of it; a reverse lookup has no name."""
    fields = {"start_ns": start_ns, "pid": 1, "tid": tid, "api": Api.GETNAMEINFO, "nested_calls": 2}
    found = decode.open_call(key, packed("call", **fields), name, b"worker")
    host_pid = (key & ~(1 << 62)) >> 32
    assert (found.key, found.start_ns, found.host_pid, found.tid) == (key, start_ns, host_pid, tid)
    assert (found.name, found.api, found.status) == (name, "getnameinfo", "in_flight")
    assert (found.comm, found.nested_calls, found.queries) == (b"worker", 2, ())
    assert decode.open_call(key, packed("call", **fields, name_size=16), name, None).name is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({}, Wait(None), id="waits in nothing"),
        pytest.param({"start_ns": 5, "wait_kind": 3, "fd": -2, "last_fd": -1}, Wait("poll", 5), id="in poll"),
        pytest.param(
            {"last_return_ns": 7, "last_kind": 1, "last_fd": 0},
            Wait(None, None, "epoll_pwait", 0, 7),
            id="came back from epoll",
        ),
        pytest.param(
            {"last_return_ns": 7, "last_kind": 3, "last_fd": -1}, Wait(None), id="came back from poll"
        ),
        pytest.param(
            {"last_return_ns": 7, "last_kind": 1, "last_fd": 4, "returns": 2, "pid": 8, "tid": 9},
            Wait(None, None, "epoll_pwait", 4, 7, "epoll", 7, pid=8, tid=9),
            id="away from epoll",
        ),
        pytest.param(
            {"start_ns": 9, "wait_kind": 0, "fd": 4, "last_return_ns": 7, "last_fd": 4, "returns": 9},
            Wait("epoll_wait", 9, "epoll_wait", 4, 7, "epoll", 7, is_in_loop=True),
            id="in its epoll instance",
        ),
        pytest.param(
            {"start_ns": 9, "wait_kind": 3, "fd": -1, "last_return_ns": 7, "last_fd": 4, "returns": 9},
            Wait("poll", 9, "epoll_wait", 4, 7, "epoll", 7),
            id="polls in a callback",
        ),
        pytest.param(
            {"start_ns": 9, "wait_kind": 5, "fd": -1, "last_return_ns": 7, "last_kind": 5, "last_fd": -1}
            | {"returns": 2},
            Wait("select", 9, loop="select", loop_return_ns=7, is_in_loop=True),
            id="in a loop by select",
        ),
    ],
)
def test_what_a_thread_waits_in(fields, expected):
    """A wait has a beginning, and an event loop a last return; what there was not is null."""
    found = decode.wait(packed("wait", **fields))
    assert found == expected
    away_ns = None if expected.loop is None or expected.is_in_loop else 3
    assert found.away_ns(10) == away_ns
    assert decode.wait(None) is None


def test_a_wait_of_another_kind_is_refused():
    """A wait in a system call that no enum has is not given a name."""
    with pytest.raises(decode.DecodeError, match="wait 7"):
        decode.wait(packed("wait", start_ns=1, wait_kind=number("WAIT_KINDS")))


def test_tcp_states_are_the_kernels():
    """SYN_SENT is 2 and ESTABLISHED 1, as in include/net/tcp_states.h; 0 is none."""
    states = [
        decode.connect(packed("connect", family=AF_INET, tcp_state=state)).tcp_state
        for state in (0, 1, 2, 12)
    ]
    assert states == [None, "ESTABLISHED", "SYN_SENT", None]


@given(wire_names(), st.binary(max_size=10))
def test_names_are_written_as_dnspython_does(name, behind):
    """Any name in wire form, with whatever follows it, is escaped as dnspython escapes it."""
    assert dns_names.presentation(name + behind) == shown_name(name)


@given(st.binary(max_size=80))
def test_what_dnspython_refuses_is_null(raw):
    """Bytes that are no whole name have no words; what is one has the same words as in dnspython."""
    try:
        expected = shown_name(raw)
    except (dns.exception.DNSException, ValueError):
        expected = None
    assert dns_names.presentation(raw) == expected


def test_compressed_names_are_null():
    """A pointer leads out of the bytes that were kept, so the name is not known."""
    assert dns_names.presentation(b"\3www\xc0\x0c") is None


@given(wire_names())
def test_names_are_the_same_but_for_case(name):
    """A name is itself in any case and with or without its final dot, and null is the same as nothing."""
    text = shown_name(name)
    assert dns_names.same(text, text.upper())
    assert dns_names.same(text, text.removesuffix(b"."))
    assert not dns_names.same(text, None)
    assert not dns_names.same(None, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param(dns_names.type_name, {1: "A", 28: "AAAA", 65: "HTTPS", 9999: "TYPE9999"}, id="types"),
        pytest.param(dns_names.rcode_name, {0: "NOERROR", 2: "SERVFAIL", 11: "RCODE11"}, id="rcodes"),
    ],
)
def test_numbers_have_the_registrys_names(words, expected):
    """Types and rcodes have their names, and those without one a name made of their number."""
    assert {number_given: words(number_given) for number_given in expected} == expected


def test_the_decoder_knows_every_api():
    """Each api of the header has a word in the lines."""
    assert decode.APIS.keys() == set(boundary.Api)
    assert header.number("API_CGO") == max(decode.APIS)
