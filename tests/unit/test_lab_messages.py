"""The scripted server's messages, checked against dnspython."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.lab import messages

LABELS = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5)
TYPES = st.sampled_from(sorted(messages.TYPE_NUMBERS))
IDS = st.integers(0, 0xFFFF)
ANSWERS = ("192.0.2.10", "2001:db8::10", "host.test")


def query_for(
    labels: list[bytes], asked: str = "A", identity: int = 7, *, edns: bool = False
) -> dns.message.Message:
    name = dns.name.Name([*labels, b""])
    return dns.message.make_query(name, asked, id=identity, use_edns=0 if edns else False)


def parsed(query: bytes) -> messages.Question:
    question = messages.parse_question(query)
    assert question is not None
    return question


@given(labels=LABELS, asked=TYPES, identity=IDS, edns=st.booleans())
def test_a_reply_answers_its_query(labels: list[bytes], asked: str, identity: int, *, edns: bool) -> None:
    """Whatever bytes are in the name, dnspython takes the reply as the answer to its query."""
    query = query_for(labels, asked, identity, edns=edns)
    wire = query.to_wire()
    reply = dns.message.from_wire(messages.make_reply(wire, parsed(wire)))
    assert query.is_response(reply)
    assert bool(reply.flags & dns.flags.RA)
    assert reply.edns == query.edns


@given(labels=LABELS, asked=TYPES, edns=st.booleans())
def test_the_question_is_read(labels: list[bytes], asked: str, *, edns: bool) -> None:
    """Type, number of labels and presence of EDNS are those that dnspython wrote."""
    question = parsed(query_for(labels, asked, edns=edns).to_wire())
    assert (question.type, question.has_opt) == (asked, edns)
    assert question.name.count(".") == len(labels) - 1


@given(st.binary(max_size=300))
def test_no_bytes_are_too_strange(noise: bytes) -> None:
    """Any datagram is either a question that ends inside it, or none."""
    question = messages.parse_question(noise)
    assert question is None or question.end <= len(noise)


@given(LABELS, st.data())
def test_a_cut_query_is_no_question(labels: list[bytes], data: st.DataObject) -> None:
    """A query that ends before its question does is not answered."""
    wire = query_for(labels).to_wire()
    cut = data.draw(st.integers(0, len(wire) - 1))
    assert messages.parse_question(wire[:cut]) is None


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("A", ["192.0.2.10"]), ("AAAA", ["2001:db8::10"]), ("PTR", ["host.test."]), ("MX", [])],
)
def test_only_fitting_answers_are_sent(asked: str, expected: list[str]) -> None:
    """Of mixed answers each type gets its own, and a type without any gets an empty, good reply."""
    wire = query_for([b"a", b"test"], asked).to_wire()
    reply = dns.message.from_wire(messages.make_reply(wire, parsed(wire), answers=ANSWERS, ttl_s=5))
    records = [record for rrset in reply.answer for record in rrset]
    assert [record.to_text() for record in records] == expected
    assert all(rrset.ttl == 5 for rrset in reply.answer)
    assert reply.rcode() == 0


def test_a_truncated_reply_has_the_flag_and_no_records() -> None:
    """TC=1 comes with an empty answer, so that nobody can be content with half of it."""
    wire = query_for([b"a", b"test"]).to_wire()
    reply = messages.make_reply(wire, parsed(wire), answers=ANSWERS, truncated=True)
    message = dns.message.from_wire(reply)
    assert message.flags & dns.flags.TC
    assert not message.answer


@given(LABELS, IDS)
def test_damaged_replies_answer_nothing(labels: list[bytes], identity: int) -> None:
    """A flipped id and another question both make a well-formed reply that fits no query."""
    query = query_for(labels, identity=identity)
    wire = query.to_wire()
    good = messages.make_reply(wire, parsed(wire))
    for damaged in (messages.with_flipped_id(good), messages.with_other_question(good)):
        assert not query.is_response(dns.message.from_wire(damaged))


def test_names_are_lower_case_and_printable() -> None:
    """Matching sees one spelling of a name, and no byte that could harm a terminal."""
    wire = query_for([b"WwW", b"\xff\n.", b"Test"]).to_wire()
    assert parsed(wire).name == "www.\\255\\010\\046.test"
