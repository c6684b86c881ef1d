"""Programs that are known from packets only and ask again: after an error, they still are in one lookup."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, only
from play import SOON, play
from program import of_this_machine, shell

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

TWO_ROUNDS = "timeout:1 attempts:2"  # musl: a round each 500 ms, three questions of each type in a round
NAME = "www.lab.test"


def serving(*script: dict[str, Any]) -> Fault:
    return Fault("own", "The test's own.", servers=(ServerPlan((topology.SERVER_1,), script),))


def verdict(line: dict[str, Any]) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def facts(line: dict[str, Any]) -> list[str]:
    return [fact["fact"] for fact in line["cause"]["evidence"]]


def test_servfail_rounds(programs: dict[str, Path]) -> None:
    """A stripped static musl program that is told SERVFAIL again and again is in one lookup, which fails."""
    argv = [of_this_machine(programs, "lookup-musl-stripped"), "--name", NAME]
    played = play(FAULTS["servfail"], {"it": argv}, "--all", options=TWO_ROUNDS)
    ended = played.only("lookup")
    assert ended["lookup"]["api"] == "wire"
    assert [query["type"] for query in ended["lookup"]["queries"]] == ["A", "AAAA"]
    assert [query["attempt"] for query in ended["lookup"]["queries"]] == [6, 6]
    assert (ended["lookup"]["status"], ended["lookup"]["error"]["type"]) == ("failed", "SERVFAIL")
    assert ended["lookup"]["duration_ms"] == pytest.approx(1000, abs=200)
    assert {verdict(line) for line in played.of("lookup_stuck")} == {("rcode_retry", "confirmed")}
    assert verdict(ended) == ("rcode_retry", "confirmed")
    lookups = played.stats["lookups"]
    assert (lookups["started"], lookups["failed"]) == (1, 1)


def test_servfail_and_then_well(programs: dict[str, Path]) -> None:
    """A good answer to the repetition ends the lookup, well, and its queries say so."""
    argv = [of_this_machine(programs, "lookup-musl-stripped"), "--name", NAME]
    fault = serving({"rcode": 2, "type": "A", "nth": 1}, GOOD_ANSWER)
    ended = play(fault, {"it": argv}, "--all", options=TWO_ROUNDS).only("lookup")
    assert ended["lookup"]["status"] == "ok"
    assert {query["rcode"] for query in ended["lookup"]["queries"]} == {"NOERROR"}


#: It closes its socket after a second, and asks again with a new one, as Go does.
CLOSES = ("--close-after-ms", 1000)


def test_late_reply_at_a_closed_port(programs: dict[str, Path]) -> None:
    """An answer after 1.5 s to a socket that was closed after 1 s: the lookup that goes on is told so."""
    argv = [of_this_machine(programs, "wire-glibc"), "--server", topology.SERVER_1, *CLOSES, "--count", 3]
    played = play(serving({**GOOD_ANSWER, "delay_ms": 1500}), {"it": argv})
    ended = played.only("lookup")
    asked = ended["lookup"]["queries"]
    assert [query["state"] for query in asked] == ["timed_out"] * 3
    assert len({query["id"] for query in asked}) == 3
    assert (ended["lookup"]["status"], ended["lookup"]["error"]["type"]) == ("failed", "UNANSWERED")
    assert ended["lookup"]["duration_ms"] == pytest.approx(3000, abs=300)
    assert verdict(ended) == ("late_reply", "confirmed")
    assert facts(ended) == ["reply_late"] * 2
    stuck = [verdict(line)[0] for line in played.of("lookup_stuck")]
    assert stuck == ["ns_silent"] * 3 + ["late_reply"]  # at 0.3, 0.6, 1.2, 2.4 s
    lookups = played.stats["lookups"]
    assert (lookups["started"], lookups["failed"], lookups["in_flight"]) == (1, 1, 0)
    queries = played.stats["queries"]
    assert (queries["sent"], queries["unanswered"]) == (3, 3)


def test_the_next_socket_is_answered(programs: dict[str, Path]) -> None:
    """When the second attempt is answered its lookup is well, and the first one is told as silence."""
    argv = [of_this_machine(programs, "wire-glibc"), "--server", topology.SERVER_1, *CLOSES, "--count", 2]
    ended = play(serving({"nth": 1, "drop": True}, GOOD_ANSWER), {"it": argv}, "--all").only("lookup")
    assert [query["state"] for query in ended["lookup"]["queries"]] == ["timed_out", "answered"]
    assert ended["lookup"]["status"] == "ok"
    assert ended["lookup"]["duration_ms"] == pytest.approx(1000, abs=200)


@pytest.mark.skipif(shutil.which("dig") is None, reason="apt-get install bind9-dnsutils")
def test_dig_asks_again(sandbox: Sandbox) -> None:
    """dig, which has its next socket before it closes the last one, is told the same."""
    with serving({**GOOD_ANSWER, "delay_ms": 1500}).setup(sandbox, options=TWO_ROUNDS):
        program = shell(sandbox, f"exec dig +time=1 +tries=2 {NAME}", stdout=subprocess.DEVNULL)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            ended = only(agent.finish(), "lookup")
    assert [query["state"] for query in ended["lookup"]["queries"]] == ["timed_out"] * 2
    assert ended["lookup"]["duration_ms"] == pytest.approx(2000, abs=300)
    assert verdict(ended) == ("late_reply", "confirmed")


def test_other_questions_are_other_lookups(programs: dict[str, Path]) -> None:
    """Another name that is asked after a socket was closed is another lookup, and the first has failed."""
    argv = [of_this_machine(programs, "wire-glibc"), "--server", topology.SERVER_1, *CLOSES, "--count", 2]
    played = play(serving({"drop": True}), {"it": [*argv, "--unique"]})
    assert [line["lookup"]["name"] for line in played.of("lookup")] == ["n0.wire.test", "n1.wire.test"]
    assert {line["lookup"]["status"] for line in played.of("lookup")} == {"failed"}
    assert {verdict(line)[0] for line in played.of("lookup")} == {"ns_silent"}
    assert played.stats["lookups"]["failed"] == 2
