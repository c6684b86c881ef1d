"""Lines as dicts: the words for each state, and the sentences for people."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.model.boundary import HISTOGRAM_BUCKETS, HISTOGRAM_SHIFT
from ebpfdns.model.facts import Connect, Lookup, Query, Server, Wait
from ebpfdns.publish import errors, events, rendering

MS = 1_000_000
S = 1000 * MS
ONE, TWO = Server("192.0.2.1", 53), Server("192.0.2.2", 53)
A, AAAA = 1, 28


def ask(server=ONE, **fields):
    values = {"sent_ns": 10 * MS, "socket": 1, "type": A, "name": b"www.lab.test."}
    return Query(server, **({"transport": "udp"} | values | fields))


def of(*queries, **fields):
    values = {"key": 1, "start_ns": 0, "pid": 1, "tid": 2, "host_pid": 1, "api": "getaddrinfo"}
    return Lookup(queries=queries, **({"status": "in_flight", "name": b"www.lab.test"} | values | fields))


LATER = ask(TWO, sent_ns=20 * MS, socket=2)


@pytest.mark.parametrize(
    ("query", "others", "in_flight", "over"),
    [
        pytest.param(ask(), (), "waiting", "timed_out", id="no reply"),
        pytest.param(ask(reply_ns=11 * MS), (LATER,), "answered", "answered", id="a reply"),
        pytest.param(ask(reply_ns=11 * MS, error=111), (), "answered", "answered", id="a reply and an error"),
        pytest.param(ask(error=errno.ECONNREFUSED), (), "failed", "failed", id="the socket has an error"),
        pytest.param(ask(was_sent=False, type=None), (), "failed", "failed", id="never sent"),
        pytest.param(ask(), (LATER,), "timed_out", "timed_out", id="another server was asked after it"),
        pytest.param(LATER, (ask(),), "waiting", "timed_out", id="asked after another one"),
        pytest.param(ask(), (ask(sent_ns=20 * MS),), "waiting", "timed_out", id="the same socket asks again"),
        pytest.param(
            ask(), (ask(type=AAAA, sent_ns=20 * MS, socket=2),), "waiting", "timed_out", id="another type"
        ),
    ],
)
def test_states_of_a_question(query, others, in_flight, over):
    """A question waits until it is answered, fails, is left for another server, or its lookup ends."""
    lookup = of(query, *others)
    assert events.query_state(query, lookup, is_over=False) == in_flight
    assert events.query_state(query, lookup, is_over=True) == over


SOCKET = {"fd": 7, "remote": ("127.0.0.53", 53), "rx_queue_bytes": 0}
WAITED = {"fd": 7, "server": {"address": "127.0.0.53", "port": 53}, "rx_queue_bytes": 0}


@pytest.mark.parametrize(
    ("thread", "wait", "expected"),
    [
        pytest.param(None, None, None, id="nothing observed"),
        pytest.param({"syscall": "running"}, None, None, id="runs"),
        pytest.param({"syscall": "futex"}, None, ("futex", None, None), id="since when was not observed"),
        pytest.param({"syscall": "poll"}, Wait("poll", 1 * S), ("poll", 2000.0, None), id="both agree"),
        pytest.param(
            {"syscall": "futex"}, Wait("poll", 1 * S), ("futex", None, None), id="the newer one counts"
        ),
        pytest.param(None, Wait("poll", 1 * S), ("poll", 2000.0, None), id="no snapshot"),
        pytest.param(None, Wait(None), None, id="in no wait"),
        pytest.param({"syscall": "poll", "sockets": [SOCKET]}, None, ("poll", None, WAITED), id="one socket"),
        pytest.param(
            {"syscall": "poll", "sockets": [SOCKET] * 2}, None, ("poll", None, None), id="two sockets"
        ),
        pytest.param(
            {"syscall": "recvmsg", "sockets": [{"fd": 3, "remote": None}]},
            None,
            ("recvmsg", None, {"fd": 3, "server": None, "rx_queue_bytes": None}),
            id="an unconnected socket",
        ),
    ],
)
def test_what_the_thread_waits_on(thread, wait, expected):
    """The snapshot says what the thread sits in, the wait since when, and only if both mean the same call."""
    found = events.waiting_on(thread, wait, 3 * S)
    assert found == (expected and dict(zip(("syscall", "since_ms", "socket"), expected, strict=True)))


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        pytest.param(None, None, id="no wait"),
        pytest.param(Wait("poll", 5), None, id="no event loop"),
        pytest.param(
            Wait(None, None, "epoll_wait", 4, 1 * S),
            {"kind": "epoll_wait", "fd": 4, "ago_ms": 2000.0},
            id="came back",
        ),
        pytest.param(
            Wait(None, None, "epoll_wait", 4, 4 * S),
            {"kind": "epoll_wait", "fd": 4, "ago_ms": 0},
            id="came back meanwhile",
        ),
    ],
)
def test_when_the_event_loop_was_last_served(wait, expected):
    """A thread that serves an event loop says when it last came back to it; others say nothing."""
    assert events.last_event_loop_return(wait, 3 * S) == expected


def link(**fields):
    values = {"key": 1, "start_ns": 0, "pid": 1, "tid": 2, "host_pid": 1, "status": "in_flight"}
    return Connect(**({"transport": "tcp"} | values | fields))


def unix(path):
    return link(path=path, family="unix", transport="unix")


@pytest.mark.parametrize(
    ("connect", "expected"),
    [
        pytest.param(link(server=Server("192.0.2.1", 53)), "dns", id="port 53"),
        pytest.param(link(server=Server("192.0.2.1", 853)), "dot", id="port 853"),
        pytest.param(link(server=Server("192.0.2.1", 443)), "application", id="port 443"),
        pytest.param(link(), "application", id="an unknown place"),
        pytest.param(unix(b"/var/run/nscd/socket"), "nss", id="nscd"),
        pytest.param(unix(b"/run/systemd/resolve/io.systemd.Resolve"), "nss", id="resolved"),
        pytest.param(unix(b"/var/lib/sss/pipes/nss"), "nss", id="sssd"),
        pytest.param(unix(b"/run/postgresql/.s.PGSQL.5432"), "application", id="a database"),
        pytest.param(unix(b"\xff/nscd/\xff"), "nss", id="odd bytes"),
        pytest.param(unix(None), "application", id="no path"),
    ],
)
def test_purposes(connect, expected):
    """What a connect is for follows from its port or path."""
    assert events.purpose(connect) == expected


@pytest.mark.parametrize(
    ("connect", "expected"),
    [
        pytest.param(link(server=Server("192.0.2.1", 53)), "192.0.2.1:53", id="IPv4"),
        pytest.param(link(server=Server("2001:db8::1", 53)), "[2001:db8::1]:53", id="IPv6"),
        pytest.param(unix(b"/run/a\nb"), r"/run/a\x0ab", id="a path"),
        pytest.param(unix(b"\0name\0more"), r"@name\x00more", id="an abstract name"),
        pytest.param(unix(b""), "an unnamed socket", id="an empty path"),
        pytest.param(link(), "an unnamed socket", id="nothing"),
    ],
)
def test_where_a_connect_goes(connect, expected):
    """A connect's goal is written as people write it, and no byte of it reaches a terminal raw."""
    assert events.connect_target(connect) == expected


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        pytest.param(of(), "www.lab.test", id="a name"),
        pytest.param(of(name=b"www.lab.test."), "www.lab.test.", id="as the program asked"),
        pytest.param(of(name=b"www.lab.test.", api="wire"), "www.lab.test", id="from a packet"),
        pytest.param(of(name=b".", api="wire"), ".", id="the root"),
        pytest.param(of(name=b"a\x1b[31m\xff"), r"a\x1b[31m\xff", id="bytes that paint a terminal red"),
        pytest.param(of(name=None, address="192.0.2.7"), "192.0.2.7", id="a reverse lookup"),
        pytest.param(of(name=None), None, id="not read"),
    ],
)
def test_names_of_lookups(lookup, expected):
    """A name is as the program asked for it, of a packet without its final dot, and escaped."""
    assert events.name_text(lookup) == expected


def ended(lookup, **fields):
    about = {"identity": "1-1", "started_wall_ns": 0, "resolver": "glibc", "now_ns": 9 * S}
    return events.lookup_event(lookup, **(about | fields))


@pytest.mark.parametrize(
    ("lookup", "word"),
    [
        pytest.param(of(status="failed", code=-2), "EAI_NONAME", id="getaddrinfo"),
        pytest.param(of(status="failed", code=2, api="res_query"), "TRY_AGAIN", id="res_query"),
        pytest.param(of(status="failed", code=34, api="gethostbyname_r"), "ERANGE", id="a small buffer"),
        pytest.param(of(status="failed", code=-99), "CODE_-99", id="a code without a name"),
        pytest.param(of(status="failed", api="res_send"), "FAILED", id="not told"),
        pytest.param(
            of(ask(reply_ns=1, rcode=3), status="failed", api="wire"), "NXDOMAIN", id="what the server said"
        ),
        pytest.param(of(ask(), status="failed", api="wire"), "UNANSWERED", id="nobody said anything"),
    ],
)
def test_errors_have_their_names(lookup, word):
    """What a lookup failed with is told by the name its caller, or its server, has for it."""
    assert ended(lookup)["error"]["type"] == word


def test_a_closed_socket_is_told():
    """A program that closes its socket before an answer is told apart from one that gave up waiting."""
    closed, left = (
        of(ask(), status="failed", api="wire", socket_closed=is_closed) for is_closed in (True, False)
    )
    assert "closed its socket" in ended(closed)["error"]["message"]
    assert "closed" not in ended(left)["error"]["message"]


def test_offsets_count_from_the_start():
    """Times of a question are milliseconds after the lookup began, never before it."""
    lookup = of(ask(sent_ns=4 * MS, resent_ns=7 * MS, reply_ns=8 * MS), start_ns=5 * MS)
    [found] = ended(lookup)["queries"]
    assert (found["sent_ms"], found["resent_ms"], found["reply_ms"]) == (0.0, 2.0, 3.0)


def test_addresses_only_where_there_are_some():
    """A lookup that went well tells its addresses; where none were read the field is absent."""
    assert ended(of(status="ok", addresses=("192.0.2.10",)))["addresses"] == ["192.0.2.10"]
    assert "addresses" not in ended(of(status="ok"))
    assert "addresses" not in ended(of(status="failed", addresses=("192.0.2.10",)))


@pytest.mark.parametrize(
    ("ns", "expected"),
    [(0, "0 ms"), (1_499_999, "1 ms"), (99 * MS, "99 ms"), (100 * MS, "0.1 s"), (61 * S, "61.0 s")],
)
def test_durations_for_people(ns, expected):
    """Short times are written in milliseconds, longer ones in seconds."""
    assert events.seconds(ns) == expected


@given(st.lists(st.integers(0, 1 << 40)))
def test_histograms_are_cumulative(durations_ns):
    """Each bound counts exactly the durations below it; what is above all bounds is in the count only."""
    counts = [0] * HISTOGRAM_BUCKETS
    for duration in durations_ns:
        counts[min(max(duration.bit_length() - HISTOGRAM_SHIFT, 0), HISTOGRAM_BUCKETS - 1)] += 1
    found = events.histogram([sum(durations_ns), *counts], HISTOGRAM_SHIFT)
    bounds_ns = {
        round((1 << (number + HISTOGRAM_SHIFT)) / MS, 3): 1 << (number + HISTOGRAM_SHIFT)
        for number in range(27)
    }
    assert found["buckets"] == sorted(found["buckets"])
    for bound_ms, count in found["buckets"]:
        assert count == sum(duration < bounds_ns[bound_ms] for duration in durations_ns)
    assert (found["count"], found["sum"]) == (len(durations_ns), round(sum(durations_ns) / MS, 3))


CAUSE = Cause(
    "ns_silent",
    "likely",
    "192.0.2.1 is silent.\x1b",
    (
        Evidence(
            "no_reply", "no reply\n", {"waited_ms": 1.5, "name": "a\tb", "is_local": False, "port": None}
        ),
    ),
    "dig @192.0.2.1",
)


def test_a_cause_is_escaped():
    """Text in a cause may come from outside: none of it reaches a terminal raw, and numbers stay numbers."""
    assert events.cause_event(CAUSE) == {
        "id": "ns_silent",
        "confidence": "likely",
        "summary": r"192.0.2.1 is silent.\x1b",
        "evidence": [
            {
                "fact": "no_reply",
                "text": r"no reply\x0a",
                "waited_ms": 1.5,
                "name": r"a\x09b",
                "is_local": False,
                "port": None,
            }
        ],
        "remedy": "dig @192.0.2.1",
    }


def stuck_line(kind="lookup_stuck"):
    return events.base(kind, 1_767_225_600 * S, "ci-7", "it hangs") | {"cause": events.cause_event(CAUSE)}


def test_json_is_one_line_each():
    """For programs each event is one line of JSON."""
    found = rendering.renderer("json")([stuck_line(), stuck_line("lookup")])
    assert [text.count(b"\n") for text in found] == [1, 1]
    assert found[0].startswith(b'{"v":1,"ts":"2026-01-01T00:00:00.000000Z","event":"lookup_stuck",')


def test_errno_names():
    """An errno has the name that programmers know, and one without a name its number."""
    assert (errors.errno_name(111), errors.errno_name(4095)) == ("ECONNREFUSED", "ERRNO4095")
    assert (errors.connect_error(110), errors.connect_error(None)) == (
        {"type": "ETIMEDOUT"},
        {"type": "EUNKNOWN"},
    )
