"""Lookups by glibc, by musl, and on the wire alone, under each fault: every fact that the lines give is true.

The programs' own accounts and the servers' logs are what the agent's lines are held against.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from play import SHORT, Played, outcome, play
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, ServerPlan, late_reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.lab.faults import Fault

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
]

SOON_MS = 50  # both questions have left by then, also those that musl sends one after the other


def unhurried(fault: Fault) -> Fault:
    """The same, with servers that do not answer before both questions are asked."""
    servers = [
        replace(server, script=tuple({"delay_ms": SOON_MS, **rule} for rule in server.script))
        for server in fault.servers
        if isinstance(server, ServerPlan)
    ]
    return replace(fault, servers=tuple(servers))


AT_ONCE = 2
LIBCS = {"glibc": "glibc", "musl": "musl", "wire": "musl-stripped"}  # of which only packets can be seen
APIS = ("getaddrinfo", "gethostbyname", "res_query")
CASES = [f"{libc}-{api}" for libc in ("glibc", "musl") for api in APIS] + ["wire-getaddrinfo"]
OF_SERVERS = (
    *("healthy", "silent", "refused", "unreachable", "servfail", "nxdomain", "one_reply_lost"),
    *("late_reply", "tcp", "first_ns_dead"),
)
STORIES = {name: unhurried(FAULTS[name]) for name in OF_SERVERS}
STORIES["late_reply"] = late_reply(1700)  # glibc asks for the second time after 1 s, and takes it then
# musl repeats a question right after SERVFAIL: on the wire these are lookups of their own.
PAIRS = [(story, case) for story in STORIES for case in CASES if (story, case) != ("servfail", CASES[-1])]
BOTH = [topology.WEB_V6, topology.WEB]

# (fault, libc) → cause and confidence of the last line; the others have none. With a third word: of one API.
CAUSES = {
    ("silent", "glibc"): ("ns_silent", "confirmed"),
    ("silent", "musl"): ("ns_silent", "likely"),  # its socket is never told that a port is closed
    ("silent", "wire"): ("ns_silent", "likely"),
    ("refused", "glibc"): ("ns_refused", "confirmed"),
    ("refused", "musl"): ("ns_silent", "likely"),
    ("refused", "wire"): ("ns_silent", "likely"),
    ("unreachable", "glibc"): ("ns_unreachable", "confirmed"),
    ("unreachable", "musl"): ("ns_unreachable", "possible"),
    ("servfail", "glibc"): ("rcode_retry", "likely"),  # one attempt: it did not try again
    ("servfail", "musl"): ("rcode_retry", "confirmed"),
    ("one_reply_lost", "glibc", "getaddrinfo"): ("one_reply_lost", "confirmed"),
    ("one_reply_lost", "musl", "getaddrinfo"): ("one_reply_lost", "confirmed"),
    ("one_reply_lost", "wire"): ("one_reply_lost", "confirmed"),
    ("late_reply", "glibc", "getaddrinfo"): ("late_reply", "confirmed"),
    ("late_reply", "glibc"): ("late_reply", "likely"),  # one question: its repetition may have been the one
    ("late_reply", "musl"): ("ns_silent", "likely"),  # it gives up before the answer comes
    ("late_reply", "wire"): ("ns_silent", "likely"),
    ("first_ns_dead", "glibc"): ("first_ns_dead", "confirmed"),
}
ERRORS = {"silent": {"timed_out"}, "refused": {"failed", "timed_out"}, "unreachable": {"failed"}}


@pytest.fixture(scope="module")
def played(programs: dict[str, Path]) -> Iterator[dict[str, Future[Played]]]:
    def start(story: str) -> Played:
        argvs = {}
        for case in [case for a_story, case in PAIRS if a_story == story]:
            libc, api = case.split("-")
            program = programs.get(f"lookup-{LIBCS[libc]}")
            if program is not None:
                argvs[case] = [program, "--api", api, "--name", name_of(case)]
        options = "timeout:1 attempts:2" if story == "late_reply" else SHORT
        return play(STORIES[story], argvs, "--all", options=options)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {story: pool.submit(start, story) for story in STORIES}


def name_of(case: str) -> str:
    return f"{case.replace('_', '')}.lab.test"


def expected_cause(story: str, libc: str, api: str) -> tuple[str, str] | None:
    return CAUSES.get((story, libc, api)) or CAUSES.get((story, libc))


def lookups(story: str, case: str, told: Played) -> list[dict[str, Any]]:
    """The ended lookups of a program: one, but none where only packets could tell of it and none left."""
    found = [line["lookup"] for line in told.of("lookup", case)]
    expected = 0 if story == "unreachable" and case.startswith("wire") else 1
    assert len(found) == expected, [line["message"] for line in told.of("lookup", case)]
    return found


@pytest.fixture
def told(played: dict[str, Future[Played]], programs: dict[str, Path], story: str, case: str) -> Played:
    of_this_machine(programs, f"lookup-{LIBCS[case.partition('-')[0]]}")
    return outcome(played[story])


every_case = pytest.mark.parametrize(("story", "case"), PAIRS)
every_story = pytest.mark.parametrize("story", STORIES)


@every_case
def test_who_asked_for_what(told: Played, story: str, case: str) -> None:
    """A line names the function, the resolver, the program's name as it was asked for, and the thread."""
    libc, api = case.split("-")
    for line in told.of("lookup", case) + told.of("lookup_stuck", case):
        lookup = line["lookup"]
        assert lookup["api"] == ("wire" if libc == "wire" else api)
        assert lookup["resolver"] == ("unknown" if libc == "wire" else libc)
        assert lookup["name"] == name_of(case)
        assert lookup["since"] == "attach"
        assert ("thread" in line) == (libc != "wire")
    lookups(story, case, told)


@every_case
def test_how_it_ended(told: Played, story: str, case: str) -> None:
    """Status, error and duration are those that the program got, and addresses those of the answer."""
    libc, api = case.split("-")
    result = told.results[case]
    code = next(iter(result["codes"]), None)
    for lookup in lookups(story, case, told):
        if libc == "wire":  # what packets can tell: not what the library made of them
            continue
        assert lookup["status"] == ("failed" if code else "ok")
        assert result["max_ms"] - 50 < lookup["duration_ms"] < result["max_ms"] + 1
        if code:
            assert lookup["error"]["type"] == (code if api == "getaddrinfo" else "FAILED")
        elif api != "res_query":
            only_v4 = api == "gethostbyname" or story == "one_reply_lost"
            assert lookup["addresses"] == ([topology.WEB] if only_v4 else BOTH)


@every_case
def test_what_was_asked(told: Played, story: str, case: str) -> None:
    """The questions are those that the servers logged: name, type, id, server, transport, each as often."""
    expected = Counter(
        (entry["name"] + ".", entry["type"], entry["id"], entry["server"], entry["transport"])
        for entry in told.asked
        if entry["name"] == name_of(case)
    )
    seen: Counter[tuple[Any, ...]] = Counter()
    for lookup in lookups(story, case, told):
        assert lookup["more_queries"] == 0
        for query in lookup["queries"]:
            where = (query["server"]["address"], query["network"]["transport"])
            if where[0] in {topology.SERVER_1, topology.SERVER_2} and story != "refused":
                seen[query["name"], query["type"], query["id"], *where] += query["attempt"]
    assert seen == expected


@every_case
def test_what_became_of_the_questions(told: Played, story: str, case: str) -> None:
    """Each question has the state, the answer's code and the times that the server's script gives it."""
    rcode = {"servfail": "SERVFAIL", "nxdomain": "NXDOMAIN"}.get(story, "NOERROR")
    for lookup in lookups(story, case, told):
        for query in lookup["queries"]:
            is_answered = query["state"] == "answered"
            assert is_answered == (query["reply_ms"] is not None) == (query["rcode"] is not None)
            assert query["rcode"] == (rcode if is_answered else None)
            is_cut = story == "tcp" and query["network"]["transport"] == "udp"
            assert query["truncated"] == (is_cut and is_answered)  # glibc may leave without the second answer
            assert query["server"]["port"] == 53
            assert is_answered or query["state"] in ERRORS.get(story, {"timed_out"})
            sent_ms, resent_ms = query["sent_ms"], query["resent_ms"]
            assert (resent_ms is not None) == (query["attempt"] > 1 and query["id"] is not None)
            assert 0 <= sent_ms <= (resent_ms or sent_ms) <= lookup["duration_ms"] + 1


@every_case
def test_cause(told: Played, story: str, case: str) -> None:
    """The last line gives the cause with the confidence that the facts allow, and none where all was well."""
    for line in told.of("lookup", case):
        found = line.get("cause")
        assert (found and (found["id"], found["confidence"])) == expected_cause(story, *case.split("-"))
        assert found is None or (found["evidence"] and found["remedy"])


@every_case
def test_stuck(told: Played, story: str, case: str) -> None:
    """What took longer than --stuck-after was told while it lasted, in time and at doubling ages."""
    for lookup in lookups(story, case, told):
        stuck = [line["lookup"] for line in told.of("lookup_stuck", case)]
        ages_ms = [one["elapsed_ms"] for one in stuck]
        due_ms = [300 * 2**n for n in range(8) if 300 * 2**n < lookup["duration_ms"]]
        assert len(ages_ms) in {
            len(due_ms),
            len(due_ms) - (lookup["duration_ms"] - (due_ms or [0])[-1] < 250),
        }
        assert all(due <= age < due + 250 for due, age in zip(due_ms, ages_ms, strict=False)), ages_ms
        assert {one["id"] for one in stuck} in (set(), {lookup["id"]})
        assert {one["started"] for one in stuck} in (set(), {lookup["started"]})
        assert all("waiting_on" in one and one["status"] == "in_flight" for one in stuck)


@every_story
def test_counts(played: dict[str, Future[Played]], story: str) -> None:
    """The counters are those of what the programs did and the lines tell."""
    told = outcome(played[story])
    ended = [line["lookup"] for line in told.of("lookup")]
    counts = told.stats["lookups"]
    status = Counter(lookup["status"] for lookup in ended)
    assert counts["started"] == len(ended) == len(told.results) - (story == "unreachable")
    assert (counts["ok"], counts["failed"], counts["abandoned"]) == (status["ok"], status["failed"], 0)
    asked = [query for lookup in ended for query in lookup["queries"] if query["id"] is not None]
    answered = sum(query["state"] == "answered" for query in asked)
    expected = {"sent": len(asked), "answered": answered, "unanswered": len(asked) - answered}
    assert told.stats["queries"] == expected
    assert told.stats["latency_ms"]["lookup"]["count"] == len(ended)
    assert told.stats["lost"] == {}
