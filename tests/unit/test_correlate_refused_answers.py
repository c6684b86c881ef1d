"""The hop behind a lookup that a daemon answered with an error: joined by the very question, in its time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from situations import AAAA, ONE, A, ask, both, situation

from ebpfdns.correlate.items import Attached
from ebpfdns.correlate.refused_answers import chain_at_the_end
from ebpfdns.model.facts import Hop, Lookup, Query

STUB, PID = "127.0.0.53", 412
DNSKEY = 48


def resolved() -> Attached:
    return Attached(
        now_ns=0,
        wall_ns=0,
        pid=PID,
        process={"executable": {"name": "systemd-resolved"}},
        around={},
        resolver="unknown",
        coverage={},
        role="supporting",
        settings={"dnssec": "yes", "dns_over_tls": None},
        serves=[STUB],
    )


def ours(**fields: Any) -> Lookup:
    """Asked at 1 ms, refused at 20 ms."""
    queries = both(STUB, sent=0.001, reply=0.02, **({"rcode": 2} | fields))
    found = situation(queries, age=0.02, status="failed", code=-3).lookup
    assert found is not None
    return found


def chain(*own: Query, lookup: Lookup | None = None, told: tuple[Hop, ...] = ()) -> tuple[Hop, ...]:
    ended = [replace(ours(), queries=(query,)) for query in own]
    return chain_at_the_end(
        lookup or ours(),
        told,
        lambda address: resolved() if address == STUB else None,
        lambda pid: ended if pid == PID else [],
    )


def test_the_very_question() -> None:
    """What the daemon was told of our question is its hop, with what it is set to do."""
    own = ask(ONE, A, sent=0.003, reply=0.004, rcode=0)
    (hop,) = chain(own)
    assert (hop.pid, hop.asked_at, hop.is_joined, hop.past, hop.queries) == (PID, STUB, True, (own,), ())
    assert (hop.is_resolved, hop.dnssec) == (True, "yes")


def test_keys_are_of_it_too() -> None:
    """What it asked to validate the answer stands beside it: for the name and those above, no others."""
    own = ask(ONE, A, sent=0.003, reply=0.004, rcode=0)
    above = ask(ONE, DNSKEY, sent=0.005, reply=0.006, rcode=0, name=b"lab.test.")
    other = replace(above, name=b"other.invalid.")
    assert chain(own, other, above)[0].past == (own, above)
    assert chain(above) == ()


@pytest.mark.parametrize("sent", [0.0005, 0.021])
def test_only_in_its_time(sent: float) -> None:
    """A question from before ours had come, or after it was answered, is somebody else's."""
    assert chain(ask(ONE, A, sent=sent, reply=sent + 0.001, rcode=0)) == ()


def test_what_has_no_error_has_no_such_hop() -> None:
    """Of a lookup with good answers, or one that asked a server elsewhere, nothing is said."""
    own = ask(ONE, AAAA, sent=0.003, reply=0.004, rcode=0)
    assert chain(own, lookup=ours(rcode=0)) == ()
    elsewhere = situation(both(ONE, sent=0.001, reply=0.02, rcode=2), age=0.02, status="failed").lookup
    assert chain(own, lookup=elsewhere) == ()


def test_what_was_told_stays() -> None:
    """A chain that was seen while the lookup was stuck is kept where nothing better is known."""
    seen = (Hop(role="stub", pid=PID, asked_at=STUB), Hop(role="upstream", pid=99, asked_at="127.0.0.1"))
    own = ask(ONE, A, sent=0.003, reply=0.004, rcode=0)
    assert chain(own, told=seen) == seen
    assert chain(told=seen[:1]) == seen[:1]
    assert chain(own, told=seen[1:]) == seen[1:]
