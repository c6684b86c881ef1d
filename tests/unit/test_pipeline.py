"""The middle as a whole: items in, lines out, with a turned clock. Every line keeps the schema."""

from __future__ import annotations

import json
from dataclasses import replace

import facts
import pytest
from facts import HOST_KEY, PID, SERVER, TID, at, connect, frames, lookup, query, scan, wire_lookup
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ebpfdns.correlate import items
from ebpfdns.correlate.losses import REMEDIES
from ebpfdns.correlate.tracker import REMEMBERED_IDS
from ebpfdns.model import boundary
from ebpfdns.pipeline import Pipeline
from ebpfdns.publish.lines import line
from ebpfdns.publish.schema import schema

VALIDATOR = Draft202012Validator(schema())
BOTH = (facts.started(), facts.attached())
LOOKUP_NAME = ("lookup", HOST_KEY, at(0))
FAILED = {"status": 2, "flags": boundary.LookupFlag.CODE_IS_KNOWN, "code": -3}


def fed(*given_items, start=BOTH):
    """All lines that follow from these items, as a reader of the stream has them; each keeps the schema."""
    pipeline = Pipeline()
    found = [event for item in (*start, *given_items) for event in pipeline.feed(item)]
    events = [json.loads(line(event)) for event in found]
    for event in events:
        assert [error.message for error in VALIDATOR.iter_errors(event)] == []
    return events


def after(*given_items, start=BOTH):
    """The lines that follow from the items after the start."""
    return fed(*given_items, start=start)[1:]


def kinds(events):
    return [event["event"] for event in events]


def test_stuck_stuck_ended():
    """A lookup is told at 1 s and at 2 s under one id, and its end once, with what it cost."""
    first, second, last = after(
        scan(1.0, lookup(0, query())),
        scan(1.5, lookup(0, query())),
        scan(2.1, lookup(0, query(resent_ns=at(1.9), attempts=2))),
        frames(2.6, lookup(0, query(reply=2.5), end=2.5)),
        frames(2.7, lookup(0, query(reply=2.5), end=2.5)),
        scan(9.9, lookup(0, query())),
    )
    assert kinds([first, second, last]) == ["lookup_stuck", "lookup_stuck", "lookup"]
    assert [event["lookup"]["id"] for event in (first, second, last)] == ["4242-1"] * 3
    assert [event["lookup"].get("update") for event in (first, second, last)] == [1, 2, None]
    assert (first["lookup"]["elapsed_ms"], second["lookup"]["elapsed_ms"]) == (1000.0, 2100.0)
    assert (last["lookup"]["status"], last["lookup"]["duration_ms"]) == ("ok", 2500.0)
    assert {event["lookup"]["started"] for event in (first, second, last)} == {"2026-01-01T00:00:00.000000Z"}
    assert (first["process"]["pid"], first["thread"]) == (PID, {"id": TID, "name": "worker"})
    assert first["lookup"]["queries"][0]["state"] == "waiting"
    assert last["lookup"]["queries"][0] == {
        "name": "www.lab.test.",
        "type": "A",
        "id": 7,
        "server": {"address": SERVER, "port": 53},
        "network": {"transport": "udp"},
        "encrypted": None,
        "attempt": 1,
        "sent_ms": 1.0,
        "resent_ms": None,
        "reply_ms": 2500.0,
        "rcode": "NOERROR",
        "truncated": False,
        "state": "answered",
        "error": None,
    }


def test_a_silent_server_is_the_cause():
    """A server that does not answer is named, with how long it has been silent, and the end keeps it."""
    stuck, ended = after(scan(1.0, lookup(0, query())), frames(10.1, lookup(0, query(), end=10.0, **FAILED)))
    assert stuck["cause"]["id"].startswith("ns_")
    assert SERVER in stuck["cause"]["summary"]
    assert stuck["cause"]["evidence"][0]["fact"] == "no_reply"
    assert ended["cause"]["id"] == stuck["cause"]["id"]
    assert ended["lookup"]["error"] == {
        "type": "EAI_AGAIN",
        "code": -3,
        "message": "temporary failure in name resolution",
    }
    assert stuck["message"].startswith("lookup of www.lab.test in flight for 1.0 s: ")
    assert ended["message"].startswith("lookup of www.lab.test failed after 10.0 s: ")


def test_a_lookup_that_was_never_stuck_has_one_line():
    """A slow or failed lookup is told when it ends, with an id of its own."""
    [event] = after(frames(0.4, lookup(0, query(reply=0.3), end=0.3)))
    assert (event["event"], event["lookup"]["id"]) == ("lookup", "4242-1")
    assert "cause" not in event or event["cause"]["id"] != "unknown"
    assert event["chain"] == []


def test_a_healthy_lookup_has_no_cause():
    """With `--all`, a lookup that was answered at once is told without a cause."""
    [event] = after(frames(0.1, lookup(0, query(reply=0.002), end=0.003)))
    assert "cause" not in event
    assert event["message"] == "lookup of www.lab.test took 3 ms"


def test_a_lost_end_is_told_as_lost():
    """Gone without a word, twice in a row: the end is told, and what was not seen of it is null."""
    gone = {"vanished": [LOOKUP_NAME]}
    stuck, ended = after(
        scan(1.0, lookup(0, query())),
        scan(1.6, **gone),
        scan(1.7, vanished=[]),
        scan(1.8, **gone),
        scan(1.9, **gone),
    )
    assert (ended["event"], ended["lookup"]["id"]) == ("lookup", stuck["lookup"]["id"])
    assert (ended["lookup"]["status"], ended["lookup"]["duration_ms"]) == (None, None)
    assert ended["lookup"]["lost_end"] is True
    assert ended["cause"]["id"] == stuck["cause"]["id"]
    assert ended["ts"] == "2026-01-01T00:00:01.900000Z"


def test_a_scan_that_did_not_look_for_the_vanished_proves_nothing():
    """A scan of what is due comes before the look for what is gone, and neither counts for the other."""
    gone = {"vanished": [LOOKUP_NAME]}
    events = after(scan(1.0, lookup(0, query())), scan(1.6, **gone), scan(1.7), scan(1.7, **gone))
    assert kinds(events) == ["lookup_stuck", "lookup"]


def test_an_end_after_a_lost_end_is_not_told_again():
    """When the end arrives after all, the one that was told stands."""
    gone = {"vanished": [LOOKUP_NAME]}
    late = frames(1.9, lookup(0, query(reply=1.5), end=1.5))
    events = after(scan(1.0, lookup(0, query())), scan(1.6, **gone), scan(1.7, **gone), late)
    assert kinds(events) == ["lookup_stuck", "lookup"]


def test_what_ended_while_the_map_was_read_is_left_to_its_frame():
    """A record that says it has ended is not told as stuck; its frame tells how it ended."""
    events = after(
        scan(1.0, lookup(0, query(reply=0.99), end=0.99)),
        scan(1.0, connects=[connect(0, end=0.99)]),
        frames(1.0, lookup(0, query(reply=0.99), end=0.99)),
    )
    assert kinds(events) == ["lookup"]


def test_a_wire_lookup_without_a_packet_is_given_up():
    """A lookup known from packets whose socket stays open is abandoned when it is too old to go on."""
    stuck, ended = after(
        scan(1.0, wire_lookup(0, query())), scan(36.0, expired_lookups=[wire_lookup(0, query())])
    )
    assert "thread" not in stuck
    assert (stuck["lookup"]["api"], stuck["lookup"]["resolver"]) == ("wire", "unknown")
    assert stuck["lookup"]["name"] == "www.lab.test"
    assert (ended["lookup"]["status"], ended["lookup"]["id"]) == ("abandoned", stuck["lookup"]["id"])


def test_a_call_that_asked_nobody_is_told():
    """A lookup that has sent nothing yet is stuck all the same, with what its thread sits in."""
    call = items.OpenCall(key=HOST_KEY, call=facts.call(), name=b"host.lab.test", thread_name=b"main")
    thread = {"syscall": "poll", "state": "S", "sockets": []}
    [event] = after(
        scan(2.0, calls=[call], threads={str(TID): thread}, waits={str(TID): facts.wait(start=0.5)})
    )
    assert (event["lookup"]["name"], event["lookup"]["queries"]) == ("host.lab.test", [])
    assert event["lookup"]["waiting_on"] == {"syscall": "poll", "since_ms": 1500.0, "socket": None}
    assert event["thread"]["name"] == "main"


def test_a_stuck_connect_is_told_and_ends():
    """A connect that gets no answer to its SYN is told like a lookup, under a connect's id."""
    stuck, ended = after(
        scan(1.0, connects=[connect(0, retransmits=1)]),
        frames(3.0, connect(0, end=3.0, status=2, error=110, retransmits=2)),
    )
    assert kinds([stuck, ended]) == ["connect_stuck", "connect"]
    assert stuck["connect"] == {
        "id": "4242-c1",
        "status": "in_flight",
        "server": {"address": facts.WEB, "port": 443},
        "network": {"transport": "tcp", "type": "ipv4"},
        "purpose": "application",
        "update": 1,
        "elapsed_ms": 1000.0,
        "lookup": None,
        "tcp": {"state": "SYN_SENT", "retransmits": 1},
    }
    assert ended["connect"]["id"] == "4242-c1"
    assert ended["connect"]["error"] == {"type": "ETIMEDOUT"}
    assert ended["connect"]["duration_ms"] == 3000.0
    assert stuck["message"].startswith("connect to 192.0.2.10:443 in flight for 1.0 s: ")


def test_a_connect_is_joined_to_the_lookup_that_gave_its_address():
    """A connect names the lookup it comes from by the id of that lookup's own lines."""
    given_by = {
        "flags": boundary.ConnectFlag.HAS_LOOKUP,
        "lookup_key": HOST_KEY,
        "lookup_start_ns": at(0),
        "lookup_name": facts.NAME,
    }
    looked_up, stuck = after(
        frames(0.5, lookup(0, query(reply=0.4), end=0.4)), scan(2.0, connects=[connect(0.5, **given_by)])
    )
    assert stuck["connect"]["lookup"] == {"id": looked_up["lookup"]["id"], "name": "www.lab.test"}


def test_a_lookup_without_a_line_has_an_id_all_the_same():
    """Two connects that come from one healthy lookup name the same id, which no other lookup gets."""
    given_by = {"flags": 4, "lookup_key": 99, "lookup_start_ns": at(0), "lookup_name": facts.NAME}
    both = [connect(0.5, key=key, **given_by) for key in (1, 2)]
    first, second, other = after(scan(2.0, connects=both), scan(2.0, lookup(0, query())))
    assert first["connect"]["lookup"]["id"] == second["connect"]["lookup"]["id"]
    ids = {first["connect"]["id"], second["connect"]["id"], other["lookup"]["id"]}
    assert len(ids | {first["connect"]["lookup"]["id"]}) == 4


def test_memory_of_ids_is_bounded():
    """However many connects come, each from a lookup of its own, the memory of ids does not grow on."""
    pipeline = Pipeline()
    pipeline.feed(facts.started())
    given_by = {"flags": 4, "lookup_start_ns": at(0), "lookup_name": facts.NAME}
    for key in range(REMEMBERED_IDS + 10):
        pipeline.feed(frames(1, connect(0, end=0.5, key=key, lookup_key=key, **given_by)))
    assert len(pipeline._tracker._ids) == REMEMBERED_IDS


def test_a_connect_whose_end_was_lost_says_so():
    """A stuck connect that is gone without a word has one last line, without status and duration."""
    gone = {"vanished": [("connect", 0xFFFF_8881_0000_1000, at(0))]}
    stuck, ended = after(scan(1.0, connects=[connect(0)]), scan(1.1, **gone), scan(1.2, **gone))
    assert ended["connect"]["id"] == stuck["connect"]["id"]
    assert (ended["connect"]["status"], ended["connect"]["duration_ms"]) == (None, None)
    assert ended["connect"]["lost_end"] is True


def test_a_connect_to_a_local_socket_has_a_path():
    """A connect to a name service daemon's socket has its path, and no server."""
    path = b"/run/systemd/resolve/io.systemd.Resolve"
    local = connect(0, family=1, transport=0, tcp_state=0, path=path, path_bytes=len(path))
    [event] = after(scan(1.0, connects=[local]))
    assert (event["connect"]["path"], event["connect"]["server"]) == (path.decode(), None)
    assert (event["connect"]["purpose"], event["connect"]["tcp"]) == ("nss", None)


def test_targets_come_and_go():
    """A process is told when it is attached, when it runs another program, and when it has gone."""
    gone = items.Gone(**facts.clock(3), pid=PID, status="exited")
    other = facts.attached(2, around={"container": {"id": "0" * 64}})
    events = fed(other, gone, gone)
    assert [event["target"]["status"] for event in events] == ["attached", "attached", "exited"]
    assert [event["message"] for event in events] == [
        "tracing api.test (pid 4242)",
        "still tracing, now it runs api.test (pid 4242)",
        "api.test (pid 4242) has exited",
    ]
    assert events[1]["container"] == events[2]["container"] == {"id": "0" * 64}


def test_a_container_is_named_in_each_line_of_its_processes():
    """What runs in a container says so in each line about it, and what does not has no such field."""
    inside = facts.attached(around={"container": {"id": "0" * 64, "runtime": "docker"}})
    told = (scan(1.0, lookup(0, query()), connects=[connect(0)]), frames(3, lookup(0, query(), end=3)))
    assert [event["container"]["runtime"] for event in after(*told, start=(BOTH[0], inside))] == [
        "docker"
    ] * 3
    assert not any("container" in event for event in after(*told))


def test_a_line_about_a_process_that_is_not_known():
    """A frame of a process that was never announced is told with what is known: its pid."""
    [event] = after(frames(1, lookup(0, query(reply=0.5), end=0.5, pid=7)))
    assert event["process"] == {"pid": 7, "executable": {"name": None, "path": None}, "start_time": None}
    assert event["lookup"]["resolver"] == "unknown"


def test_forks_and_execs_wait_for_the_owner_of_the_loop():
    """New processes and new programs make no line; they are listed in the order they came."""
    pipeline = Pipeline()
    changes = (("FORKED", 50), ("EXECED", PID), ("FORKED", 51), ("EXECED", 50))
    raw = [facts.process_change(change, pid) for change, pid in changes]
    assert pipeline.feed(frames(1, *raw)) == []
    assert (pipeline.forked, pipeline.execed) == ([50, 51], [PID, 50])


def test_losses_are_told_once_with_a_remedy():
    """Each loss has a line: its stage, how many since the last such line and since when, what helps."""
    totals = {"kernel_ring": 3, "name_cut": 1}
    first = items.Lost(**facts.clock(1), totals=totals)
    second = items.Lost(**facts.clock(2), totals=totals | {"kernel_ring": 5})
    events = after(first, second)
    told = [(event["lost"]["where"], event["lost"]["count"]) for event in events]
    assert told == [("kernel_ring", 3), ("name_cut", 1), ("kernel_ring", 2)]
    assert all(event["lost"]["remedy"] == REMEDIES[event["lost"]["where"]] for event in events)
    since = [event["lost"]["since"][17:19] for event in events]
    assert since == ["00", "00", "01"]


def test_a_loss_lowers_the_confidence():
    """After a frame was lost, a silent server is no longer confirmed; the loss is among the evidence."""
    asked = [query(resent_ns=at(5)), query("192.0.2.54", sent=2.5)]
    lost = items.Lost(**facts.clock(1), totals={"kernel_ring": 1})
    [sure] = after(scan(8, lookup(0, *asked)))
    _, unsure = after(lost, scan(8, lookup(0, *asked)))
    order = ["possible", "likely", "confirmed"]
    assert order.index(unsure["cause"]["confidence"]) < order.index(sure["cause"]["confidence"])
    assert "events_lost" in {one["fact"] for one in unsure["cause"]["evidence"]}


def test_a_loss_before_it_began_changes_nothing():
    """A loss that was noticed before a lookup began hides nothing of that lookup."""
    lost = items.Lost(**facts.clock(1), totals={"kernel_ring": 1})
    [sure] = after(scan(8, lookup(2, query(sent=2.1))))
    _, as_sure = after(lost, scan(8, lookup(2, query(sent=2.1))))
    assert as_sure["cause"] == sure["cause"]


def test_unseen_packets_lower_the_confidence():
    """Where DNS packets of a process are not seen, nobody is said to be silent for certain."""
    blind = facts.attached(
        coverage=facts.COVERAGE | {"wire": False, "missing": ["DNS packets: no cgroup v2"]}
    )
    asked = [query(resent_ns=at(5)), query("192.0.2.54", sent=2.5)]
    [event] = after(scan(8, lookup(0, *asked)), start=(BOTH[0], blind))
    assert event["cause"]["confidence"] == "possible"
    assert event["cause"]["evidence"][-1]["fact"] == "probe_missing"


def test_bytes_that_say_nothing_are_a_loss():
    """Bytes that are no frame, open record or call are counted and told, and nothing else is lost."""
    junk = items.OpenCall(key=1, call=b"junk", name=None, thread_name=None)
    told = after(
        frames(1, b"", lookup(0, query(reply=0.5), end=0.5), lookup(0)),
        scan(2, b"junk", calls=[junk], connects=[b"junk"], expired_lookups=[b"junk"], expired_connects=[b""]),
        facts.stats(3),
    )
    assert kinds(told) == ["lost", "lookup", *["lost"] * 6, "stats"]
    assert told[-1]["stats"]["lost"] == {"frame_bad": 7}


def test_a_wait_that_says_nothing_is_null():
    """A wait of an unknown kind is null, and the lookup is told all the same."""
    waits = {str(TID): facts.wait()[:10]}
    lost, stuck = after(scan(1, lookup(0, query()), waits=waits))
    assert (lost["lost"]["where"], stuck["lookup"]["waiting_on"]) == ("frame_bad", None)


def test_stats_are_the_kernels_numbers():
    """Counts are the kernel's, what is in flight is what has not ended, and stuck is what was told."""
    counts = {
        "LOOKUPS_STARTED": 10,
        "LOOKUPS_OK": 6,
        "LOOKUPS_FAILED": 2,
        "LOOKUPS_ABANDONED": 1,
        "CONNECTS_STARTED": 5,
        "CONNECTS_OK": 2,
        "CONNECTS_FAILED": 1,
        "CONNECTS_ABANDONED": 1,
        "QUERIES_SENT": 20,
        "QUERIES_ANSWERED": 17,
        "QUERIES_UNANSWERED": 3,
    }
    rows = {
        0: [5_000_000, 2, 3, *[0] * 24, 1, 4],
        boundary.Latency.WAIT + boundary.WaitKind.POLL: [9, *[0] * 28],
    }
    *_, event = after(scan(1.0, lookup(0, query())), facts.stats(60, counts, rows))
    found = event["stats"]
    assert found["lookups"] == {
        "started": 10,
        "ok": 6,
        "failed": 2,
        "abandoned": 1,
        "stuck": 1,
        "in_flight": 1,
    }
    assert found["connects"] == {
        "started": 5,
        "ok": 2,
        "failed": 1,
        "abandoned": 1,
        "stuck": 0,
        "in_flight": 1,
    }
    assert found["queries"] == {"sent": 20, "answered": 17, "unanswered": 3}
    assert found["latency_ms"]["lookup"] == {
        "buckets": [[0.001, 2], [0.002, 5], [68719.477, 6]],
        "sum": 5.0,
        "count": 10,
    }
    assert found["latency_ms"]["event_loop_wait"].keys() == {kind.name.lower() for kind in boundary.WaitKind}
    assert (found["targets"], found["since"]) == (1, "2026-01-01T00:00:00.000000Z")
    assert event["message"] == "10 lookups: 6 ok, 2 failed, 1 stuck, 1 in flight"


def test_in_flight_is_never_negative():
    """An end of what began before the counters did does not make the number in flight negative."""
    *_, event = after(facts.stats(1, {"LOOKUPS_OK": 3, "CONNECTS_FAILED": 2}))
    assert (event["stats"]["lookups"]["in_flight"], event["stats"]["connects"]["in_flight"]) == (0, 0)


SECRETS = ("secret", "hidden", "192.0.2.99")


def story_with_names():
    """Names wherever there can be some: asked for, in questions, behind connects, of reverse lookups."""
    secret, wire_secret = b"Secret.hidden.test", b"\6secret\6hidden\4test\0"
    named = {"name": secret, "name_bytes": len(secret)}
    about_wire = {"name": wire_secret, "name_bytes": len(wire_secret)}
    searched = wire_secret[:-1] + b"\6hidden\0"
    asked = [query(**about_wire), query(name=searched, name_bytes=len(searched), id=8, sent=0.5)]
    address = facts.ADDRESS("192.0.2.99").packed
    reverse = {"api": boundary.Api.GETHOSTBYADDR, "family": 2, "flags": 8, "name": address, "name_bytes": 4}
    given_by = {"flags": 4, "lookup_key": HOST_KEY, "lookup_start_ns": at(0), "lookup_name": secret}
    call = items.OpenCall(key=9 << 32, call=facts.call(tid=9), name=secret, thread_name=b"worker")
    conf = {"nameservers": [SERVER], "search": [], "options": {}}
    return (
        scan(1.2, lookup(0, *asked, **named), calls=[call], connects=[connect(0, **given_by)]),
        scan(2.4, lookup(0, *asked, **named), resolv_confs={str(PID): conf}),
        scan(1.2, lookup(0, key=8 << 32, **reverse), wire_lookup(0, query(**about_wire), **about_wire)),
        frames(
            9,
            lookup(0, *asked, end=9, **(named | FAILED)),
            lookup(0, key=8 << 32, end=9, **(reverse | {"status": 2})),
        ),
        scan(9.1, vanished=[("lookup", 9 << 32, at(0)), ("connect", 0xFFFF_8881_0000_1000, at(0))]),
        scan(9.2, vanished=[("lookup", 9 << 32, at(0)), ("connect", 0xFFFF_8881_0000_1000, at(0))]),
    )


def test_redacted_names_are_nowhere():
    """With `--redact-names` no line holds a name that was looked up, nor a piece of one, in any field."""
    text = json.dumps(fed(*story_with_names(), start=(facts.started(redact_key="k"), BOTH[1]))).lower()
    assert [secret for secret in SECRETS if secret in text] == []
    plain = json.dumps(fed(*story_with_names())).lower()
    assert [secret for secret in SECRETS if secret in plain] == list(SECRETS)


def test_redacted_names_can_still_be_joined():
    """One name has one hash, with or without its final dot and in any case; another key gives another."""

    def names(key):
        first, *_ = after(*story_with_names(), start=(facts.started(redact_key=key), BOTH[1]))
        return first["lookup"]["name"], first["lookup"]["queries"][0]["name"]

    asked, question = names("k")
    assert asked == question != names("other")[0]


def test_redaction_changes_no_decision():
    """Which lines there are, and the causes in them, do not depend on the names being hashed."""
    plain = fed(*story_with_names())
    hashed = fed(*story_with_names(), start=(facts.started(redact_key="k"), BOTH[1]))
    assert kinds(plain) == kinds(hashed)
    assert [e.get("cause", {}).get("id") for e in plain] == [e.get("cause", {}).get("id") for e in hashed]


def story():
    """A little of everything."""
    return (
        *story_with_names(),
        frames(10, b"junk", connect(9, end=10, key=5), facts.process_change("FORKED", 99)),
        items.Lost(**facts.clock(11), totals={"kernel_ring": 2}),
        facts.stats(12, {"LOOKUPS_STARTED": 3}),
        items.Gone(**facts.clock(13), pid=PID, status="detached"),
    )


def test_the_same_items_give_the_same_bytes():
    """The middle has no clock and no chance in it: fed twice, also as recorded, it writes the same bytes."""

    def written(fed_items):
        pipeline = Pipeline()
        return b"".join(line(event) for item in fed_items for event in pipeline.feed(item))

    once = (*BOTH, *story())
    as_recorded = [items.from_json(json.loads(json.dumps(items.to_json(item)))) for item in once]
    assert written(once) == written(once) == written(as_recorded)


BYTES = st.binary(max_size=600)
KIND = st.sampled_from([1, 2, 3]).map(lambda kind: kind.to_bytes(4, "little"))
RAW = BYTES | st.builds(bytes.__add__, KIND, st.binary(min_size=300, max_size=2000))
FIELDS = {
    "lookups": st.lists(RAW, max_size=2),
    "connects": st.lists(RAW, max_size=2),
    "expired_lookups": st.lists(RAW, max_size=2),
    "expired_connects": st.lists(RAW, max_size=2),
    "calls": st.lists(
        st.builds(items.OpenCall, key=st.integers(0, 1 << 63), call=RAW, name=BYTES, thread_name=BYTES),
        max_size=2,
    ),
    "waits": st.dictionaries(st.just("0"), BYTES, max_size=1),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(RAW, max_size=4), st.fixed_dictionaries(FIELDS))
def test_no_bytes_stop_the_middle(raw, fields):
    """Whatever bytes come, each is told as something or counted, and what follows is told as ever."""
    pipeline = Pipeline()
    for item in BOTH:
        pipeline.feed(item)
    now = replace(scan(1), **fields)
    for item in (frames(1, *raw), now, scan(2, lookup(0, query())), facts.stats(3)):
        events = [json.loads(line(event)) for event in pipeline.feed(item)]
    assert kinds(events) == ["stats"]


PLACES = st.tuples(st.integers(0, 2), st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(("seen", "ended", "gone", "expired")), PLACES), max_size=25))
def test_every_stuck_line_has_its_one_end(steps):
    """In any order of sightings, ends and disappearances, no id ends twice and none goes on after its end."""
    pipeline = Pipeline()
    open_ids, ended_ids = set(), set()
    for item in BOTH:
        pipeline.feed(item)
    for second, (step, (key, start)) in enumerate(steps):
        now = 10 + second
        raw, name = lookup(start, query(), key=key), ("lookup", key, at(start))
        made = {
            "seen": scan(now, raw),
            "ended": frames(now, lookup(start, query(), key=key, end=now)),
            "gone": scan(now, vanished=[name]),
            "expired": scan(now, expired_lookups=[raw]),
        }
        for event in pipeline.feed(made[step]):
            identity = event["lookup"]["id"]
            assert identity not in ended_ids
            (open_ids if event["event"] == "lookup_stuck" else ended_ids).add(identity)
    assert len(pipeline.told_open()) == len(open_ids - ended_ids)


def test_no_time_at_all_is_no_reason_to_hang():
    """A recording that says `stuck after nothing` is replayed like any other."""
    events = fed(scan(1, lookup(0, query())), start=(facts.started(stuck_after_ns=0), BOTH[1]))
    assert kinds(events) == ["target", "lookup_stuck"]


@pytest.mark.parametrize("item", [scan(1, lookup(0, query())), frames(1, lookup(0, end=1)), facts.stats(1)])
def test_what_comes_before_the_start_is_no_reason_to_stop(item):
    """A recording that lost its beginning still tells what it holds."""
    assert Pipeline().feed(item)
