"""The agent in a container with the manifests' rights: it sees a stuck lookup of a process in another one.

Each test starts real containers with runc: a target in its own network namespace, where a DNS server is bound
and never answers, and the agent exactly as daemonset.yaml or sidecar.yaml describes it.
"""

from __future__ import annotations

import json

import containers
import pytest
import running

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

NAME = "stuck.example.test"
NOBODYS_PID = 4_194_303


def is_stuck(line: str) -> bool:
    """Whether a line tells of our stuck lookup."""
    event = json.loads(line)
    return event["event"] == "lookup_stuck" and event["lookup"]["name"].rstrip(".") == NAME


def test_a_lookup_that_gets_stuck_is_reported_with_the_right_process(pair):
    """A lookup is reported while in flight, with its process, call, questions, socket and cause."""
    agent = pair.ready_agent()
    pair.target.say(f"lookup {NAME}")
    pair.target.line("asked")
    *before, line = agent.until(is_stuck)
    coverage = json.loads(before[0])["target"]["coverage"]
    assert (coverage["wire"], coverage["missing"]) == (True, [])
    event = json.loads(line)
    assert event["process"]["pid"] == pair.pid
    assert event["process"].get("vpid", pair.pid) == pair.vpid
    assert event["process"]["executable"]["name"].startswith("python3")
    assert event["thread"]["id"] != pair.pid
    lookup = event["lookup"]
    assert (lookup["status"], lookup["api"], lookup["resolver"]) == ("in_flight", "getaddrinfo", "glibc")
    assert {query["state"] for query in lookup["queries"]} == {"waiting"}
    assert {query["server"]["address"] for query in lookup["queries"]} == {"127.0.0.1"}
    assert lookup["waiting_on"]["syscall"] == "poll"
    assert lookup["waiting_on"]["socket"]["server"] == {"address": "127.0.0.1", "port": 53}
    assert event["cause"]["id"] == "ns_silent"


def test_what_else_a_target_does_is_reported_too(pair):
    """Lookups of a child, questions made by hand and connects are reported, each of the right process."""
    agent = pair.ready_agent(children="1")
    for command in (f"child {NAME}", "ask by-hand.example.test", "connect"):
        pair.target.say(command)
    stuck = {}
    for line in agent.until(lambda _: len(stuck) == 3):
        event = json.loads(line)
        if event["event"].endswith("_stuck"):
            told = event.get("lookup") or event["connect"]
            stuck[told.get("api", "connect")] = event
    assert set(stuck) == {"getaddrinfo", "wire", "connect"}
    assert {stuck[way]["process"]["pid"] for way in ("wire", "connect")} == {pair.pid}
    child = stuck["getaddrinfo"]
    assert child["process"]["pid"] not in (pair.pid, None)
    assert child["thread"]["id"] == child["process"]["pid"]
    assert child["lookup"]["name"] == NAME
    assert stuck["wire"]["lookup"]["name"].rstrip(".") == "by-hand.example.test"
    assert stuck["connect"]["connect"]["server"]["address"] == "127.0.0.1"


def test_the_end_of_a_stuck_lookup_is_reported_once(on_node):
    """When the lookup gives up, one `lookup` line with the same id follows, with its error and duration."""
    agent = on_node.ready_agent()
    on_node.target.say(f"lookup {NAME}")
    *_, line = agent.until(is_stuck)
    on_node.target.line("ended")
    *_, end = agent.until(lambda line: json.loads(line)["event"] == "lookup")
    code, rest = agent.stop()
    lookup = json.loads(end)["lookup"]
    assert lookup["id"] == json.loads(line)["lookup"]["id"]
    assert (lookup["status"], lookup["error"]["type"]) == ("failed", "EAI_AGAIN")
    assert code == 0
    assert "lookup" not in [json.loads(line)["event"] for line in rest]


def test_the_second_start_finds_what_the_first_one_compiled(on_node):
    """A container that is started again, with the volumes of its pod, takes the programs from its cache."""
    cache = on_node.setting.volumes / "cache/ebpfdns"
    found = []
    for _ in range(2):
        agent = on_node.ready_agent()
        found.append({path.name: path.stat().st_mtime_ns for path in cache.iterdir()})
        agent.stop()
        on_node.ready_file.unlink()
    assert len(found[0]) == 1
    assert found[0] == found[1]


def test_sigterm_ends_the_agent_with_its_last_line(pair):
    """SIGTERM, as kubelet sends it to process 1, ends the agent with 0 after a `stats` line."""
    agent = pair.ready_agent()
    code, rest = agent.stop()
    assert code == 0, agent.messages()
    assert json.loads(rest[-1])["event"] == "stats"


def test_the_agent_ends_when_its_target_ends(pair):
    """When the traced process exits the agent ends with 0, as the contract says, and says so in a line."""
    agent = pair.ready_agent()
    pair.target.process.stdin.close()
    lines = [json.loads(line) for line in agent.until(lambda line: json.loads(line)["event"] == "stats")]
    assert [e["target"]["status"] for e in lines if e["event"] == "target"] == ["attached", "exited"]
    assert agent.process.wait(running.PATIENCE_S) == 0, agent.messages()


def test_a_missing_target_is_an_error_of_its_own(setting):
    """A pid that does not exist ends the agent with exit code 4 and a message that names the pid."""
    made = containers.agent_of(containers.DAEMONSET, setting, NOBODYS_PID, containers.NODE)
    agent = setting.start("agent", made)
    assert agent.process.wait(running.PATIENCE_S) == 4, agent.messages()
    assert str(NOBODYS_PID) in agent.messages()
