"""DNS without any library: a stripped static program, seen by its packets alone, and counted exactly."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import GOOD_ANSWER, Fault, ServerPlan
from ebpfdns.lab.namespace import bare_python, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

BOTH_FAMILIES = (topology.SERVER_1, topology.SERVER_1_V6)
FAMILIES = pytest.mark.parametrize("server", BOTH_FAMILIES, ids=("ipv4", "ipv6"))
UDP_SENDS = ("sendto", "sendmsg", "sendmmsg")
CONNECTED_SENDS = ("send", "write", "writev")
RECEIVES = ("recvfrom", "recv", "recvmsg", "recvmmsg", "read", "readv")
URING = "--io-uring"
COUNT = 13
PATIENT = ("--stuck-after", "30s", "--slow-after", "30s")
IMPATIENT_MS = 100


def serving(*script: dict[str, Any]) -> Fault:
    return Fault(name="own", sentence="The test's own.", servers=(ServerPlan(BOTH_FAMILIES, script),))


@pytest.fixture(scope="module")
def binary(programs: dict[str, Path]) -> Path:
    return of_this_machine(programs, "wire-musl-stripped")


@pytest.fixture
def good_server(sandbox: Sandbox) -> Iterator[None]:
    with serving(GOOD_ANSWER).setup(sandbox, log=False):
        yield


class Traced:
    """Several programs, traced side by side by one agent until each has ended."""

    def __init__(
        self, sandbox: Sandbox, binary: Path, arguments: Sequence[Sequence[object]], *agent_words: object
    ) -> None:
        started = [Program(sandbox, [binary, *words]) for words in arguments]
        pids = [word for program in started for word in ("--pid", program.pid)]
        with Agent("attach", *pids, *agent_words) as agent:
            for program in started:
                program.go()
            self.results = [program.result() for program in started]
            self.lines = agent.finish()
        self.stats = self.lines[-1]["stats"]
        self.lookups = [of(self.lines, "lookup", program.pid) for program in started]

    def sums(self, *names: str) -> dict[str, int]:
        """The programs' own accounts, added up."""
        return {name: sum(result[name] for result in self.results) for name in names}


def combined(*parts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Each of the first with each of the second, and so on."""
    made: list[tuple[str, ...]] = [()]
    for part in parts:
        made = [(*before, *after) for before in made for after in part]
    return made


def sends(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [("--send", name) for name in names]


def receives(names: Sequence[str]) -> list[tuple[str, ...]]:
    return [("--receive", name) for name in names]


def check_all_answered(traced: Traced, ways: Sequence[tuple[str, ...]], transport: str, each: int) -> None:
    """Every program's lookups, one by one, then the sums."""
    for way, lookups, result in zip(ways, traced.lookups, traced.results, strict=True):
        asked = [query for line in lookups for query in line["lookup"]["queries"]]
        assert result["sent"] == result["answered"] == len(asked), (way, result, len(asked))
        kinds = Counter((line["lookup"]["api"], line["lookup"]["status"]) for line in lookups)
        assert kinds == {("wire", "ok"): each}, way
        assert {line["lookup"]["name"] for line in lookups} == {"wire.test"}, way
        assert {query["network"]["transport"] for query in asked} == {transport}, way
        assert {(query["state"], query["rcode"]) for query in asked} == {("answered", "NOERROR")}, way
    sums = traced.sums("sent", "answered")
    assert traced.stats["queries"] == {**sums, "unanswered": 0}
    counts = traced.stats["lookups"]
    assert (counts["started"], counts["ok"]) == (each * len(ways), each * len(ways))
    assert traced.stats["lost"] == {}


@FAMILIES
@pytest.mark.usefixtures("good_server")
def test_every_udp_send_and_receive_is_seen(sandbox: Sandbox, binary: Path, server: str) -> None:
    """Over UDP each pair of system calls, connected or not, and io_uring shows each query exactly once."""
    connected = [(), ("--connected",)]
    ways = combined(sends(UDP_SENDS), receives(RECEIVES), connected)
    ways += combined(sends(CONNECTED_SENDS), receives(RECEIVES))
    ways += combined([(URING,)], connected)
    arguments = [("--server", server, "--count", COUNT, *way) for way in ways]
    traced = Traced(sandbox, binary, arguments, "--all", *PATIENT)
    check_all_answered(traced, ways, "udp", COUNT)


@FAMILIES
@pytest.mark.usefixtures("good_server")
def test_every_tcp_send_and_receive_is_seen(sandbox: Sandbox, binary: Path, server: str) -> None:
    """Over TCP each pair of system calls and io_uring shows each query once, length prefix apart or not."""
    tcp_sends = [name for name in (*UDP_SENDS, *CONNECTED_SENDS) if name != "sendmmsg"]
    tcp_receives = [name for name in RECEIVES if name != "recvmmsg"]
    ways = combined(sends(tcp_sends), receives(tcp_receives))
    ways += combined(sends(tcp_sends), [("--split-prefix",)])
    ways += combined([(URING,)], [(), ("--split-prefix",)])
    arguments = [("--server", server, "--tcp", "--count", COUNT, *way) for way in ways]
    traced = Traced(sandbox, binary, arguments, "--all", *PATIENT)
    check_all_answered(traced, ways, "tcp", COUNT)
    connects = traced.stats["connects"]
    assert connects["started"] == connects["ok"] == len(ways)


@pytest.mark.usefixtures("good_server")
def test_two_messages_in_one_write_are_two_queries(sandbox: Sandbox, binary: Path) -> None:
    """Packed into one TCP segment, or cut at each length prefix, both questions are seen and answered."""
    ways = combined(sends(("send", "writev")), [(), ("--split-prefix",)], [("--pack",)])
    ways += combined([(URING, "--pack")], [(), ("--split-prefix",)])
    pairs = 7
    arguments = [("--tcp", "--count", 2 * pairs, *way) for way in ways]
    traced = Traced(sandbox, binary, arguments, "--all", *PATIENT)
    check_all_answered(traced, ways, "tcp", 2 * pairs)


@pytest.mark.usefixtures("good_server")
def test_a_batch_of_equal_questions_is_as_many_lookups(sandbox: Sandbox, binary: Path) -> None:
    """Seven, or eleven, times the same question in one sendmmsg: each is a lookup of its own."""
    rounds = 5
    batch = ("--send", "sendmmsg", "--receive", "recvmmsg", "--unique")
    ways = [(*batch, "--batch", size, "--count", size * rounds) for size in (7, 11)]
    traced = Traced(sandbox, binary, ways, "--all", *PATIENT)
    assert [result["answered"] for result in traced.results] == [7 * rounds, 11 * rounds]
    assert [len(lookups) for lookups in traced.lookups] == [7 * rounds, 11 * rounds]
    names = [{line["lookup"]["name"] for line in lookups} for lookups in traced.lookups]
    assert [len(found) for found in names] == [rounds, rounds]
    assert traced.stats["queries"] == {"sent": 18 * rounds, "answered": 18 * rounds, "unanswered": 0}
    assert traced.stats["lookups"]["ok"] == 18 * rounds
    assert traced.stats["lost"] == {}


# Replies that are none, or come late, or from elsewhere.


def test_a_reply_with_another_id_answers_nothing(sandbox: Sandbox, binary: Path) -> None:
    """A flipped transaction id, or a reply from an address not asked, leaves the question unanswered."""
    for spoilt in ({"flip_id": True}, {"source": topology.SERVER_2}):
        with serving({**GOOD_ANSWER, **spoilt}).setup(sandbox, log=False):
            words = ("--count", 5, "--timeout-ms", IMPATIENT_MS, "--unique")
            traced = Traced(sandbox, binary, [words], "--all")
        assert traced.results[0]["sent"] == 5
        assert traced.stats["queries"] == {"sent": 5, "answered": 0, "unanswered": 5}, spoilt
        assert {line["lookup"]["status"] for line in traced.lookups[0]} == {"failed"}, spoilt
        assert {line["lookup"]["error"]["type"] for line in traced.lookups[0]} == {"UNANSWERED"}, spoilt


def test_half_a_reply_answers_nothing(sandbox: Sandbox, binary: Path) -> None:
    """A reply that is cut in its question is for no resolver, in a datagram as in a stream."""
    with serving({**GOOD_ANSWER, "half": True}).setup(sandbox, log=False):
        once = ("--timeout-ms", IMPATIENT_MS)
        traced = Traced(sandbox, binary, [("--count", 3, "--unique"), ("--tcp", *once)], "--all")
    assert [result["answered"] for result in traced.results] == [3, 0]  # it looks at ids only
    assert traced.stats["queries"] == {"sent": 4, "answered": 0, "unanswered": 4}
    assert Counter(line["lookup"]["status"] for line in traced.lookups[0]) == {"failed": 3}
    assert [line["lookup"]["error"]["type"] for line in traced.lookups[1]] == ["UNANSWERED"]


def test_an_answer_that_says_no_is_a_failed_lookup(sandbox: Sandbox, binary: Path) -> None:
    """NXDOMAIN and SERVFAIL are answers: the query is answered, the lookup has failed with that code."""
    for rcode, word in ((2, "SERVFAIL"), (3, "NXDOMAIN")):
        with serving({"rcode": rcode}).setup(sandbox, log=False):
            traced = Traced(sandbox, binary, [("--count", 5, "--unique")], "--all")
        assert traced.stats["queries"] == {"sent": 5, "answered": 5, "unanswered": 0}
        assert {line["lookup"]["error"]["type"] for line in traced.lookups[0]} == {word}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_closed_socket_ends_what_was_asked_on_it(sandbox: Sandbox, binary: Path, transport: str) -> None:
    """A question whose socket is closed before an answer comes ends at once, as failed: UNANSWERED."""
    count = 101
    words = ("--count", count, "--close-after-ms", 1, *(("--tcp",) if transport == "tcp" else ()))
    with serving({"drop": True}).setup(sandbox, log=False):
        traced = Traced(sandbox, binary, [words], "--all")
    assert traced.results[0]["sent"] == count
    kinds = Counter((line["lookup"]["status"], line["lookup"]["error"]["type"]) for line in traced.lookups[0])
    assert kinds == {("failed", "UNANSWERED"): count}
    assert traced.stats["queries"] == {"sent": count, "answered": 0, "unanswered": count}
    assert traced.stats["lookups"]["failed"] == count


def test_many_questions_open_on_one_socket_all_end_with_it(sandbox: Sandbox, binary: Path) -> None:
    """101 names asked on one socket and never answered are each told as stuck, and each ended, once."""
    count = 101
    words = ("--count", count, "--rate", 0, "--unique", "--timeout-ms", 1000)
    with serving({"drop": True}).setup(sandbox, log=False):
        traced = Traced(sandbox, binary, [words], "--stuck-after", "250ms")
    assert traced.results[0]["sent"] == count
    first = [line for line in of(traced.lines, "lookup_stuck") if line["lookup"]["update"] == 1]
    assert len({line["lookup"]["id"] for line in first}) == count
    assert len({line["lookup"]["id"] for line in traced.lookups[0]}) == count
    assert traced.stats["lookups"]["in_flight"] == 0
    assert traced.stats["queries"] == {"sent": count, "answered": 0, "unanswered": count}


def test_questions_of_ended_lookups_make_room_for_others(sandbox: Sandbox, binary: Path) -> None:
    """Four programs leave 3,301 questions each, more than there is room for at once, and none is lost."""
    words = ("--count", 3301, "--rate", 0, "--unique", "--window", 3301, "--timeout-ms", 100)
    with serving({"drop": True}).setup(sandbox, log=False):
        started = [Program(sandbox, [binary, *words]) for _ in range(4)]
        pids = [word for program in started for word in ("--pid", program.pid)]
        with Agent("attach", *pids, *PATIENT) as agent:
            for number, program in enumerate(started, 1):
                program.go()
                assert program.result()["sent"] == 3301
                agent.wait_for(lambda line: line["event"] == "lookup", count=3301 * number)
            lines = agent.finish()
    assert lines[-1]["stats"]["queries"] == {"sent": 13_204, "answered": 0, "unanswered": 13_204}
    counts = lines[-1]["stats"]["lookups"]
    assert (counts["started"], counts["failed"], counts["in_flight"]) == (13_204, 13_204, 0)
    assert lines[-1]["stats"]["lost"] == {}


# Many.


@pytest.mark.usefixtures("good_server")
def test_a_flood_of_names_is_counted_exactly(sandbox: Sandbox, binary: Path) -> None:
    """5,003 different names as fast as they can be asked: each one lookup, answered, none lost, no line."""
    count = 5003
    words = ("--count", count, "--rate", 0, "--unique", "--timeout-ms", 5000)
    traced = Traced(sandbox, binary, [words], *PATIENT)
    assert traced.results[0]["answered"] == count
    assert traced.stats["queries"] == {"sent": count, "answered": count, "unanswered": 0}
    counts = traced.stats["lookups"]
    assert (counts["started"], counts["ok"], counts["in_flight"]) == (count, count, 0)
    assert traced.stats["latency_ms"]["query"]["count"] == count
    assert traced.stats["lost"] == {}
    assert traced.lookups == [[]]


@pytest.mark.usefixtures("good_server")
def test_a_flood_of_one_name_is_no_failure(sandbox: Sandbox, binary: Path) -> None:
    """The same name 5,003 times at once, all answered: every query is counted, no lookup has failed."""
    count = 5003
    traced = Traced(sandbox, binary, [("--count", count, "--rate", 0, "--timeout-ms", 5000)], *PATIENT)
    assert traced.results[0]["answered"] == count
    assert traced.stats["queries"] == {"sent": count, "answered": count, "unanswered": 0}
    counts = traced.stats["lookups"]
    assert (counts["started"], counts["ok"], counts["in_flight"]) == (count, count, 0)
    assert traced.lookups == [[]]


def test_another_port_is_dns_when_it_is_said_to_be(sandbox: Sandbox, binary: Path) -> None:
    """--dns-port shows the queries to that port and no longer those to 53; both can be asked for."""
    ready_file = sandbox.new_file("ready")
    listen = ["--listen", topology.SERVER_2, "--port", "5353", "--script", '[{"rcode": 0}]']
    server = sandbox.popen(bare_python("dns_server", *listen, "--ready-file", str(ready_file)))
    wait_for_file(ready_file, server)
    ways = (("--server", topology.SERVER_2, "--port", 5353, "--count", 7), ("--count", 5))
    with serving(GOOD_ANSWER).setup(sandbox, log=False):
        other = Traced(sandbox, binary, ways, "--all", "--dns-port", 5353)
        both = Traced(sandbox, binary, ways, "--all", "--dns-port", 53, "--dns-port", 5353)
    assert [len(lookups) for lookups in other.lookups] == [7, 0]
    assert {query["server"]["port"] for line in other.lookups[0] for query in line["lookup"]["queries"]} == {
        5353
    }
    assert other.stats["queries"] == {"sent": 7, "answered": 7, "unanswered": 0}
    assert [len(lookups) for lookups in both.lookups] == [7, 5]
    assert both.stats["queries"] == {"sent": 12, "answered": 12, "unanswered": 0}


@pytest.mark.usefixtures("good_server")
def test_packets_of_others_are_not_ours(sandbox: Sandbox, binary: Path) -> None:
    """A program beside the target, in the same cgroup and network, leaves no trace in lines or counts."""
    target = Program(sandbox, [binary, "--count", 3])
    other = Program(sandbox, [binary, "--count", 103])
    with Agent("attach", "--pid", target.pid, "--all") as agent:
        other.go()
        assert other.result()["answered"] == 103
        target.go()
        assert target.result()["answered"] == 3
        lines = agent.finish()
    assert lines[-1]["stats"]["queries"] == {"sent": 3, "answered": 3, "unanswered": 0}
    assert {line["process"]["pid"] for line in of(lines, "lookup")} == {target.pid}
