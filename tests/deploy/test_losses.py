"""What docs/deployment.md says is lost without a capability or a mount is lost, in real containers."""

from __future__ import annotations

import json

import containers
import pods
import pytest
import running

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(300)]

NAME = "stuck.example.test"
ALL = pods.capabilities(containers.DAEMONSET)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: only the first agent compiles."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def setting(setting, cache):
    """As ever, but with that cache."""
    setting.volumes.mkdir()
    (setting.volumes / "cache").symlink_to(cache)
    return setting


def stuck_lookup(pair, agent) -> tuple[dict, dict]:
    """The coverage that the agent tells, and its line about a lookup of the target that got stuck."""
    pair.target.say(f"lookup {NAME}")
    events = [json.loads(line) for line in agent.until(lambda line: f'"{NAME}' in line and "_stuck" in line)]
    coverage = next(event["target"]["coverage"] for event in events if event["event"] == "target")
    return coverage, events[-1]


def without(pair, capability: str | None) -> tuple[dict, dict]:
    """The same by an agent that lacks one capability."""
    agent = pair.ready_agent([name for name in ALL if name != capability])
    return stuck_lookup(pair, agent)


@pytest.mark.parametrize("capability", ["BPF", "PERFMON"])
def test_without_the_right_to_trace_it_ends(on_node, capability):
    """It ends with 3 and one message that names what is missing, and no line is written."""
    agent = on_node.agent([name for name in ALL if name != capability])
    assert agent.process.wait(running.PATIENCE_S) == 3
    assert f"CAP_{capability}" in agent.messages()
    assert "Traceback" not in agent.messages()
    assert agent.lines.get(timeout=running.PATIENCE_S) is None


def test_without_net_admin_packets_are_not_seen(on_node):
    """The lookup, its thread and its socket are reported; that its packets are not seen is said."""
    coverage, event = without(on_node, "NET_ADMIN")
    assert coverage["wire"] is False
    assert "DNS packets" in coverage["missing"][0]
    assert (event["lookup"]["api"], event["lookup"]["queries"]) == ("getaddrinfo", [])
    assert event["lookup"]["waiting_on"]["socket"]["server"]["port"] == 53
    assert event["cause"]["id"] == "agent_blind"


def test_without_ptrace_only_packets_are_seen(on_node):
    """The lookup is known from its packets alone, and the coverage says that library calls are not seen."""
    coverage, event = without(on_node, "SYS_PTRACE")
    assert (coverage["libc"], coverage["wire"]) == (None, True)
    assert "library calls" in coverage["missing"][0]
    assert event["lookup"]["api"] == "wire"
    assert event["process"]["executable"]["path"] is None


def test_without_dac_read_search_the_socket_is_not_named(on_node):
    """All is reported but which socket the thread waits for, and the coverage says what was refused."""
    coverage, event = without(on_node, "DAC_READ_SEARCH")
    (refused,) = coverage["missing"]
    assert "DAC_READ_SEARCH" in refused
    assert len(event["lookup"]["queries"]) == 2
    assert event["lookup"]["waiting_on"]["syscall"] == "poll"
    assert event["lookup"]["waiting_on"]["socket"] is None


@pytest.mark.parametrize(("dropped", "libc"), [(None, True), ("CHECKPOINT_RESTORE", False)])
def test_a_replaced_libc_is_reached_through_map_files(setting, dropped, libc):
    """A process whose libc was replaced is seen in full; without CHECKPOINT_RESTORE only its packets are."""
    pair = containers.agent_on_node(setting, with_own_libc=True)
    setting.own_libc.unlink()
    coverage, event = without(pair, dropped)
    assert (coverage["libc"] is not None) is libc
    assert event["lookup"]["api"] == ("getaddrinfo" if libc else "wire")
    assert coverage["wire"] is True


def test_without_the_hosts_cgroups_it_does_not_claim_to_see_packets(on_node):
    """A container that has its own cgroup tree only says so, and reports the lookup without its queries."""
    agent = on_node.agent_without_mount("/sys/fs/cgroup")
    on_node.await_start(agent)
    coverage, event = stuck_lookup(on_node, agent)
    assert coverage["wire"] is False
    assert "/sys/fs/cgroup" in coverage["missing"][0]
    assert event["lookup"]["queries"] == []


def test_without_tracefs_it_ends(on_node):
    """It ends with 3, and a message that says what to mount."""
    agent = on_node.agent_without_mount("/sys/kernel/tracing")
    assert agent.process.wait(running.PATIENCE_S) == 3
    assert "tracefs is not mounted" in agent.messages()


@pytest.mark.parametrize("kernel", ["6.18", "6.1"])
def test_the_larger_list_sees_everything_too(on_node, kernel):
    """The list for older kernels works, with uprobe links and with the probes that those kernels have."""
    coverage, event = stuck_lookup(on_node, on_node.ready_agent(pods.larger_list(), assume_kernel=kernel))
    assert (coverage["libc"], coverage["wire"]) == ("glibc 2.36", True)
    assert ["before" in text for text in coverage["missing"]] == [True] * (kernel == "6.1")
    assert event["lookup"]["api"] == "getaddrinfo"
    assert len(event["lookup"]["queries"]) == 2


def test_an_older_kernel_refuses_the_small_list(on_node):
    """Where uprobes need perf_event_open the small list ends with 3, and a message that leads further."""
    agent = on_node.agent(assume_kernel="6.1")
    assert agent.process.wait(running.PATIENCE_S) == 3
    assert "cannot probe" in agent.messages()
    assert "docs/deployment.md" in agent.messages()
