"""Questions in memory: each is found where it is, and which of them is under way is proven or not said."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.model.dns_names import presentation, type_name
from ebpfdns.observe.query_buffer import (
    Message,
    agreed,
    asked,
    asked_at_the_end,
    find_queries,
    find_servers,
    pointed_to,
)
from ebpfdns.observe.user_stack import Frame, Stack

START = 0x7FFC_0000_0000
LIBC = "/lib/libc.so.6"

labels = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=4).filter(
    lambda parts: sum(map(len, parts)) + len(parts) < 255
)


def query(name: str | dns.name.Name, kind: str = "A", id_: int = 4711, *, edns: bool = False) -> bytes:
    message = dns.message.make_query(name, kind, use_edns=edns)
    message.id = id_
    return message.to_wire()


def stack(*parts: bytes | int) -> Stack:
    words = (part.to_bytes(8, "little") if isinstance(part, int) else part for part in parts)
    return Stack(START, b"".join(words))


def frames(*places: tuple[str | None, int]) -> list[Frame]:
    return [Frame(LIBC, symbol, 0x7F00_0000_0000 + at, START + at) for symbol, at in places]


@given(
    parts=labels,
    kind=st.sampled_from(["A", "AAAA", "PTR", "SRV"]),
    id_and_edns=st.tuples(st.integers(0, 65535), st.booleans()),
    around=st.tuples(st.binary(max_size=40), st.binary(max_size=40)),
)
def test_a_query_is_found_where_it_is(
    parts: list[bytes], kind: str, id_and_edns: tuple[int, bool], around: tuple[bytes, bytes]
) -> None:
    """Whatever lies around it, a well-formed question is found with its place, id, name and type."""
    name, (id_, edns), (before, after) = dns.name.Name([*parts, b""]), id_and_edns, around
    wire = query(name, kind, id_, edns=edns)
    found = {message.address: message for message in find_queries(before + wire + after, START)}
    message = found[START + len(before)]
    expected = presentation(name.to_wire())
    assert expected is not None
    assert (message.id, message.name, message.type) == (id_, expected.decode(), kind)


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(memory: bytes) -> None:
    """Any memory can be gone through; what is found in it lies in it."""
    for message in find_queries(memory, START):
        assert START <= message.address < message.address + message.size_bytes <= START + len(memory)


@pytest.mark.parametrize(
    ("what", "at", "value"),
    [
        ("a reply", 2, 0x81),
        ("an error", 3, 0x02),
        ("no question", 5, 0),
        ("two questions", 5, 2),
        ("an answer", 7, 1),
        ("two additional records", 11, 2),
        ("an additional record that is not there", 11, 1),
        ("a compressed name", 12, 0xC0),
        ("an empty name", 12, 0),
        ("class CHAOS", -1, 3),
        ("a type that nobody asks for", -4, 0x77),
    ],
)
def test_what_is_no_question_is_not_taken_for_one(what: str, at: int, value: int) -> None:
    """Each field must be what a resolver writes into a question."""
    wire = bytearray(query("www.lab.test"))
    assert [message.name for message in find_queries(bytes(wire), START)] == ["www.lab.test."], what
    wire[at] = value
    assert find_queries(bytes(wire), START) == [], what


def test_a_question_that_is_cut_off_is_none() -> None:
    """A message must end in what was read."""
    wire = query("www.lab.test")
    assert all(find_queries(wire[:length], START) == [] for length in range(len(wire)))


def test_the_two_questions_of_one_lookup_agree() -> None:
    """A and AAAA of one name are one lookup, whatever the case; other names are none."""
    one, two = (Message(START + at, at, "www.lab.test.", kind, 30) for at, kind in ((0, "A"), (32, "AAAA")))
    found = agreed([one, two])
    assert found is not None
    assert (found.name, found.types, found.ids) == ("www.lab.test.", ("A", "AAAA"), (0, 32))
    assert agreed([one, Message(START, 1, "old.lab.test.", "A", 30)]) is None
    assert agreed([]) is None


def test_a_message_that_nothing_points_to_is_a_leftover() -> None:
    """Only a message whose first byte a word of the inner frames points to is under way."""
    one, two = (
        Message(START + at, at, name, "A", 30) for at, name in ((64, "new.test."), (128, "old.test."))
    )
    words = (START + 64).to_bytes(8, "little") + (START + 129).to_bytes(8, "little")
    assert pointed_to([one, two], words) == [one]
    assert pointed_to([one, two], words[:7]) == []


def test_the_question_under_way_is_told_from_an_earlier_one() -> None:
    """A whole message of a lookup before lies in the same frame: the one that is sent counts."""
    new, old = query("new.lab.test", id_=1).ljust(48), query("old.lab.test", id_=2).ljust(48)
    found = asked(
        stack(0, START + 32, 0, 0, new, old),
        frames(("poll", 0), ("__res_context_send", 16), ("__res_context_query", 32), ("getaddrinfo", 120)),
    )
    assert found is not None
    assert (found.name, found.types, found.ids) == ("new.lab.test.", ("A",), (1,))


def test_where_the_sender_has_no_name_the_function_that_makes_the_messages_tells() -> None:
    """Before glibc 2.34 only the latter is exported; the messages lie in its own frame."""
    wire = query("new.lab.test", id_=1)
    places = (("poll", 0), (None, 8), ("__res_context_query", 16), ("getaddrinfo", 64))
    found = asked(stack(START + 24, 0, 0, wire), frames(*places))
    assert found is not None
    assert (found.name, found.ids) == ("new.lab.test.", (1,))


@pytest.mark.parametrize(
    ("module", "caller", "is_musl"),
    [
        ("/lib/ld-musl-x86_64.so.1", None, True),
        ("/usr/lib/libc.musl-x86_64.so.1", None, True),
        ("/usr/lib/x86_64-linux-musl/libc.so", None, True),
        ("/usr/bin/program", "__res_msend_rc", True),  # linked into it
        ("/usr/bin/program", "main", False),
        ("/usr/bin/program", None, False),
        ("/usr/lib/libcurl.so", None, False),
    ],
)
def test_musl_is_known_by_its_own_wait(module: str, caller: str | None, is_musl: bool) -> None:  # noqa: FBT001
    """In poll that musl itself has called it waits for answers; called by anyone else it may be anything."""
    frames_of_it = [Frame(module, None, 1, START), Frame(module, "poll", 2, START + 8)]
    frames_of_it.append(Frame(module, caller, 3, START + 16))
    memory = stack(0, 0, START + 32, 0, query("new.lab.test", id_=1))
    assert (asked(memory, frames_of_it) is not None) == is_musl
    elsewhere = [*frames_of_it[:2], Frame("/usr/bin/other", caller, 3, START + 16)]
    assert asked(memory, elsewhere) is None


@pytest.mark.parametrize(
    "symbols",
    [
        ("poll", None, None, "main"),
        ("poll", "curl_multi_poll", None, "main"),
        ("poll", None, None, "__res_context_send"),  # its caller is not known
        (),
    ],
)
def test_who_does_not_send_asks_nothing(symbols: tuple[str | None, ...]) -> None:
    """Without a sending function among the frames, and its caller, no message is under way."""
    places = [(symbol, 8 * index) for index, symbol in enumerate(symbols)]
    assert asked(stack(0, START + 32, 0, 0, query("old.lab.test")), frames(*places)) is None


def test_types_have_their_names() -> None:
    """Every type that counts as sane has a name."""
    assert type_name(int(dns.rdatatype.HTTPS)) == "HTTPS"


SERVER = bytes.fromhex("02000035c0000235") + bytes(8)  # 192.0.2.53 port 53, as a sockaddr_in
SERVER_V6 = bytes.fromhex("0a00003500000000") + bytes(15) + b"\1" + bytes(4)


def test_servers_are_found_where_a_resolver_has_them() -> None:
    """Addresses with DNS's port, of both families, each once; IPv4 in IPv6 is IPv4. Other ports are none."""
    mapped = bytes.fromhex("0a0000350000000000000000000000000000ffffc0000236") + bytes(4)
    other_port = bytes.fromhex("02000050c0000237") + bytes(8)
    found = find_servers(b"\xff" * 5 + SERVER + SERVER_V6 + mapped + SERVER + other_port)
    assert found == [["192.0.2.53", 53], ["::1", 53], ["192.0.2.54", 53]]


def test_the_question_at_the_end_needs_a_word_that_points_to_it() -> None:
    """Where frames cannot be told apart, a query that nothing points to may be an old one."""
    wire = query("www.example.com")
    found = asked_at_the_end(stack(START + 8, wire))
    assert found is not None
    assert (found.name, found.types) == ("www.example.com.", ("A",))
    assert asked_at_the_end(stack(0, wire)) is None
