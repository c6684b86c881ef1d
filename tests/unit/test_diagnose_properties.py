"""What holds for every situation, however odd."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from situations import ONE, START_NS, THREE, TWO, S

from ebpfdns.diagnose.catalogue import IDS
from ebpfdns.diagnose.cause import CONFIDENCES, FACTS
from ebpfdns.diagnose.judge import judge
from ebpfdns.diagnose.wording import shown
from ebpfdns.model.facts import Connect, Lookup, Other, Query, Server, Situation


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


addresses = st.sampled_from(
    [ONE, TWO, THREE, "127.0.0.53", "2001:db8::53", "fe80::1%eth0", "not an address", ""]
)
servers = st.builds(Server, addresses, st.sampled_from([53, 853, 443, 0]))
moments = st.integers(0, 40).map(lambda tenths: START_NS + tenths * S // 4) | st.integers(0, 2**64 - 1)
errnos = st.sampled_from([None, 1, 5, 13, 22, 101, 110, 111, 113])
names = st.sampled_from([b"a.local", b"www.lab.test.", b"WWW.lab.test.", b"x.", b"\xff;$(x)\n"]) | st.binary(
    max_size=20
)
queries = st.builds(
    Query,
    server=servers,
    transport=st.sampled_from(["udp", "tcp"]),
    sent_ns=moments,
    was_sent=st.booleans(),
    socket=st.integers(0, 3),
    name=maybe(names),
    type=maybe(st.sampled_from([1, 28, 12, 999])),
    id=maybe(st.integers(0, 2)),
    attempts=st.integers(0, 5),
    resent_ns=maybe(moments),
    reply_ns=maybe(moments),
    rcode=maybe(st.integers(0, 15)),
    answers=maybe(st.integers(0, 9)),
    truncated=st.booleans(),
    settled=st.booleans(),
    error=errnos,
)
statuses = st.sampled_from(["in_flight", "ok", "failed", "abandoned"])
lookups = st.builds(
    Lookup,
    key=st.just(7),
    start_ns=moments,
    pid=st.just(10),
    tid=st.just(11),
    host_pid=st.just(10),
    api=st.sampled_from(["getaddrinfo", "gethostbyname", "wire", "res_query", "uv_getaddrinfo"]),
    descriptor_error=st.sampled_from([None, 23, 24, 1]),
    status=statuses,
    name=maybe(names),
    address=maybe(addresses),
    end_ns=maybe(moments),
    code=maybe(st.integers(-11, 5)),
    queries=st.lists(queries, max_size=6).map(tuple),
    more_queries=st.integers(0, 2),
    wrong_ids=st.integers(0, 2),
    socket_closed=st.booleans(),
    may_be_missed=st.booleans(),
    before_attach=st.booleans(),
)
connects = st.builds(
    Connect,
    key=st.just(9),
    start_ns=moments,
    pid=st.just(10),
    tid=st.just(11),
    host_pid=st.just(10),
    status=statuses,
    server=maybe(servers),
    path=maybe(st.binary(max_size=8)),
    family=st.sampled_from(["ipv4", "ipv6", "unix"]),
    transport=maybe(st.sampled_from(["tcp", "udp", "unix"])),
    end_ns=maybe(moments),
    error=errnos,
    in_lookup=st.booleans(),
    tcp_state=maybe(st.sampled_from(["SYN_SENT", "ESTABLISHED", "CLOSE"])),
    retransmits=st.integers(0, 6),
    lookup_name=maybe(names),
)
counts = maybe(st.integers(0, 9))
states = maybe(st.sampled_from(["S", "R", "D", "T", "t", "Z"]))
texts = st.text(max_size=5)
paths = st.sampled_from(
    ["/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket"]
)
owners = st.fixed_dictionaries(
    {}, optional={"pid": counts, "name": maybe(texts), "state": states, "syscall": maybe(texts)}
)
peers = st.fixed_dictionaries(
    {"path": maybe(paths | texts)},
    optional={"listener_backlog": counts, "rx_queue_bytes": counts, "owner": maybe(owners)},
)
sockets = st.fixed_dictionaries(
    {"kind": maybe(st.sampled_from(["udp", "tcp", "unix", "netlink"]))},
    optional={
        "fd": st.integers(0, 9),
        "state": maybe(st.sampled_from(["SYN_SENT", "ESTABLISHED", "UNCONNECTED"])),
        "remote": maybe(st.tuples(addresses, st.sampled_from([53, 853])).map(list)),
        "rx_queue_bytes": counts,
        "tx_queue_bytes": counts,
        "retransmits": counts,
        "path": maybe(st.text(max_size=5)),
        "inode": st.integers(0, 2),
        "peer": maybe(peers),
    },
)
threads = st.fixed_dictionaries(
    {
        "state": states,
        "syscall": maybe(st.sampled_from(["poll", "futex", "connect", "read", "running"])),
    },
    optional={
        "sockets": st.lists(sockets, max_size=3),
        "args": st.sampled_from([[], [1, 128, 2, 0, 0, 0], [1, 0, 2, 0, 0, 0], [1, 137, 0, 5, 0, 0]]),
        "stack": maybe(st.lists(st.sampled_from(["_nss_sss_x", "poll", None]), max_size=2)),
    },
)
processes = st.fixed_dictionaries(
    {},
    optional={
        "forked_without_exec": maybe(st.booleans()),
        "threads_total": counts,
        "limits": maybe(st.fixed_dictionaries({}, optional={"nofile": counts})),
        "fds_total": counts,
        "nsswitch": maybe(
            st.fixed_dictionaries({"hosts": st.lists(st.sampled_from(["sss", "dns", "\xff"]))})
        ),
        "hosts_file": maybe(st.fixed_dictionaries({"size_bytes": maybe(st.integers(0, 9_000_000))})),
        "modules": maybe(st.lists(st.sampled_from(["libnss_sss.so.2", "x"]))),
        "sockets": maybe(st.lists(sockets, max_size=2)),
        "listeners": maybe(
            st.fixed_dictionaries(
                {
                    "127.0.0.53": maybe(
                        st.fixed_dictionaries({"owner": maybe(owners)}, optional={"rx_queue_bytes": counts})
                    )
                }
            )
        ),
    },
)
others = st.builds(
    Other, st.just("10-1"), lookups, st.sampled_from(["ns_silent", "unknown"]), st.just("It waits.")
)
confs = st.fixed_dictionaries(
    {
        "nameservers": st.lists(addresses | st.text(max_size=4), max_size=4),
        "search": st.just([]),
        "options": st.lists(
            st.sampled_from(["timeout:1", "timeout:99999", "timeout:", "timeout:x", "use-vc", "rotate"])
        ),
        "present": st.sampled_from([True, False, None]),
    }
)
losses = st.dictionaries(
    st.sampled_from(["kernel_ring", "kernel-map.X", "frame_bad"]), st.integers(1, 9), min_size=1
)
situations = st.builds(
    Situation,
    now_ns=moments,
    lookup=maybe(lookups),
    connect=maybe(connects),
    thread=maybe(threads),
    resolv_conf=maybe(confs),
    process=maybe(processes),
    others=st.lists(others, max_size=2).map(tuple),
    resolver=st.sampled_from(["glibc", "musl", "unknown"]),
    wire=st.booleans(),
    missing=st.lists(st.text(min_size=1, max_size=5), max_size=2).map(tuple),
)
MANY = settings(max_examples=200)


@MANY
@given(situations)
def test_every_verdict_keeps_the_contract(seen: Situation) -> None:
    """Whatever was seen, the cause is in the catalogue, with facts that exist, and text that can be shown."""
    cause = judge(seen)
    if cause is None:
        return
    assert cause.id in IDS
    assert cause.confidence in CONFIDENCES
    assert cause.evidence
    assert cause.remedy
    for text in (cause.summary, cause.remedy, *(one.text for one in cause.evidence)):
        assert text.isascii()
        assert text.isprintable()
    for one in cause.evidence:
        assert one.fact in FACTS
        for name, value in one.numbers.items():
            assert re.fullmatch("[a-z][a-z0-9_]*", name)
            assert name not in ("fact", "text")
            assert value is None or isinstance(value, int | float | str | bool)


@MANY
@given(situations)
def test_judging_is_pure(seen: Situation) -> None:
    """The same situation gives the same cause each time, and is left as it was."""
    before = copy.deepcopy(seen)
    assert judge(seen) == judge(copy.deepcopy(seen))
    assert seen == before


@MANY
@given(situations, losses)
def test_losses_never_make_surer(seen: Situation, lost: dict[str, int]) -> None:
    """With something lost the confidence is no higher, lower where it can be, and the loss is told."""
    plain, weakened = judge(seen), judge(replace(seen, lost=lost))
    if plain is None or weakened is None:
        assert plain == weakened
        return
    assert CONFIDENCES.index(weakened.confidence) <= CONFIDENCES.index(plain.confidence)
    assert weakened.confidence != "confirmed"
    told = [one.numbers for one in weakened.evidence if one.fact == "events_lost"]
    assert any(set(lost.values()) <= set(numbers.values()) for numbers in told)


@MANY
@given(situations)
def test_without_the_wire_silence_is_never_more_than_possible(seen: Situation) -> None:
    """Where packets are not seen, "nobody answered" is no fact."""
    cause = judge(replace(seen, wire=False))
    if cause is not None and cause.id in {"ns_silent", "first_ns_dead", "one_reply_lost", "tcp53_silent"}:
        assert cause.confidence == "possible"


@MANY
@given(situations)
def test_an_open_lookup_always_has_a_verdict(seen: Situation) -> None:
    """Something stuck is never left without a cause, and `unknown` says how long and how much was asked."""
    if seen.lookup is None or seen.lookup.status != "in_flight" or seen.connect is not None:
        return
    cause = judge(seen)
    assert cause is not None
    if cause.id == "unknown":
        assert {"elapsed_ms", "queries", "unanswered"} <= cause.evidence[0].numbers.keys()


@given(st.binary(), st.binary())
def test_shown_names_differ_when_the_names_do(one: bytes, other: bytes) -> None:
    """A name in a sentence is printable ASCII, and no two names look the same."""
    assert shown(one).isascii()
    assert shown(one).isprintable()
    assert (shown(one) == shown(other)) == (one == other)
