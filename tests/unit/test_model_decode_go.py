"""Lookups of goroutines: what their records hold in places that mean something else for library calls."""

from __future__ import annotations

from typing import Any

import pytest
from header import lookup_frame, number, packed
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.model import boundary, decode
from ebpfdns.model.boundary import Api, Attempt, LookupFlag, QueryFlag, Status
from ebpfdns.model.facts import GoError, Lookup, Server

AF_INET, AF_INET6, UDP = 2, 10, 17
KINDS = ("is_timeout", "is_temporary", "is_not_found")
IDS = st.integers(1, (1 << 64) - 1)


def one_lookup(queries: tuple[dict[str, Any], ...] = (), **fields: Any) -> Lookup:
    return decode.lookup(lookup_frame(list(queries), **({"api": Api.GO, "status": 2} | fields)))


@given(IDS, st.sampled_from([Api.GO, Api.CGO]))
def test_the_goroutines_id_is_where_others_have_a_service(goroutine, api):
    """It has 64 bits, and there is no service."""
    found = one_lookup(api=api, service=packed("go_part", goroutine=goroutine))
    assert (found.goroutine_id, found.service, found.is_of_go) == (goroutine, None, True)


@given(
    st.binary(max_size=112), st.binary(max_size=24).filter(lambda text: b"\0" not in text), st.integers(0, 7)
)
def test_the_error_is_where_others_have_addresses(text, server, flags):
    """A failed lookup has no addresses: text, server and what kind of error it is come back."""
    found = one_lookup(
        flags=LookupFlag.CODE_IS_KNOWN,
        code=flags,
        addresses=text,
        more_addresses=len(text),
        service=packed("go_part", goroutine=7, server=server),
    )
    kinds = {name: bool(flags & number(f"GO_ERROR_{name.upper()}")) for name in KINDS}
    assert found.go_error == GoError(text, server or None, is_cut=False, **kinds)
    assert (found.addresses, found.more_addresses, found.code) == ((), 0, None)


def test_an_error_that_was_not_read_is_null():
    """Without the flag nothing is said of it; a lookup that went well has none."""
    assert one_lookup(addresses=b"rest", more_addresses=4).go_error is None
    found = one_lookup(
        status=Status.OK, address_count=1, address_families=bytes([AF_INET]), addresses=bytes([192, 0, 2, 1])
    )
    assert (found.go_error, found.addresses) == (None, ("192.0.2.1",))


def attempt(**fields: Any) -> dict[str, Any]:
    return {"family": AF_INET, "attempts": 1, "sent_ns": 5, "attempt": Attempt.RUNNING, "type": 28} | fields


def test_free_places_are_no_queries_and_the_others_are_in_order():
    """Two goroutines ask at once, each in places of its own."""
    asked = (attempt(sent_ns=9, transport=UDP), {}, attempt(sent_ns=8, transport=UDP), {})
    assert [query.sent_ns for query in one_lookup(asked).queries] == [8, 9]


def test_an_attempt_that_has_sent_nothing_is_known_by_what_it_was_told():
    """Its server and name are as Go's resolver has them; no id, no transport, no packet."""
    fields = {"flags": QueryFlag.NO_MESSAGE, "server": bytes([192, 0, 2, 53]), "server_port": 53}
    name = b"www.example.test."
    (found,) = one_lookup((attempt(name=name, name_bytes=len(name), **fields),)).queries
    assert (found.server, found.name, found.type) == (Server("192.0.2.53", 53), name, 28)
    assert (found.was_sent, found.id, found.transport, found.attempt) == (False, None, None, "running")


@pytest.mark.parametrize(
    ("text", "server"),
    [
        (b"[2001:db8::53]:5353", Server("2001:db8::53", 5353)),
        (b"[fe80::1%eth0]:53", Server("fe80::1%eth0", 53)),
        (b"[cut", Server("", 0)),
    ],
)
def test_a_server_that_is_not_ipv4_stands_where_the_name_would(text, server):
    """It is read from its text."""
    fields = {"flags": QueryFlag.NO_MESSAGE, "family": AF_INET6, "name": text}
    (found,) = one_lookup((attempt(**fields),)).queries
    assert (found.server, found.name) == (server, None)


def test_an_attempt_with_a_packet_is_a_query_like_any():
    """It has what stands in the packet, and says how Go's resolver sees it."""
    (found,) = one_lookup((attempt(transport=UDP, attempt=Attempt.FAILED, id=7),)).queries
    assert (found.was_sent, found.id, found.transport, found.attempt) == (True, 7, "udp", "failed")
    with pytest.raises(decode.DecodeError, match="attempt 9"):
        one_lookup((attempt(transport=UDP, attempt=9),))


@given(st.integers(1, (1 << 22) - 1), st.integers(1, (1 << 39) - 1))
def test_an_open_call_has_its_goroutine_and_process(host_pid, goroutine):
    """The key holds both; the text was read by its length."""
    key = number("GO_BIT") | host_pid << number("GO_ID_BITS") | goroutine
    assert boundary.is_go_key(key)
    raw = packed("call", start_ns=1, api=Api.GO, hints=goroutine, name_size=4, name=9, function=1)
    found = decode.open_call(key, raw, b"name", None)
    assert (found.host_pid, found.goroutine_id, found.name, found.tid) == (host_pid, goroutine, b"name", 0)


def test_keys_of_threads_and_packets_are_no_goroutines():
    """Threads, what was under way before tracing, and what is known from packets have other bits."""
    thread = 4_194_303 << 32 | 4_194_303
    for key in (thread, thread | boundary.EARLIER_BIT, thread | 1 << 63, (1 << 64) - 1, 3 << 61):
        assert not boundary.is_go_key(key)
