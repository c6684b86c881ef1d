"""A target whose child has the lookup, without --children: told, explained, and closed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from agent import Agent, of, only
from program import shell

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]


def test_the_lookup_of_a_child(sandbox: Sandbox) -> None:
    """A shell that waits for getent is said to do just that, and the child's lookup is closed once."""
    with FAULTS["silent"].setup(sandbox, options="timeout:4 attempts:1"):
        target = shell(sandbox, "getent ahosts www.lab.test; true")
        with Agent("attach", "--pid", target.pid, "--stuck-after", "300ms") as agent:
            target.go()
            lines = agent.finish()
    stuck = of(lines, "lookup_stuck")
    ended = only(lines, "lookup")
    assert stuck
    for line in stuck:
        assert line["process"]["pid"] != target.pid
        assert line["process"]["executable"]["name"] == "getent"
        assert line["lookup"]["since"] == "before_attach"
        assert line["lookup"]["id"] == ended["lookup"]["id"]
        assert (line["cause"]["id"], line["cause"]["confidence"]) == ("child_process", "confirmed")
        first = line["cause"]["evidence"][0]
        assert (first["fact"], first["parent_pid"], first["pid"]) == (
            "child_has_lookup",
            target.pid,
            line["process"]["pid"],
        )
        assert line["lookup"]["waiting_on"]["socket"]["server"] == {"address": topology.SERVER_1, "port": 53}
    assert ended["lookup"]["status"] is None
    assert lines[-1]["stats"]["lookups"]["started"] == 0
    assert lines[-1]["stats"]["lookups"]["stuck"] == 0


def test_with_children_it_is_a_lookup_of_its_own(sandbox: Sandbox) -> None:
    """A child that is traced has the cause of its own lookup."""
    with FAULTS["silent"].setup(sandbox, options="timeout:2 attempts:1"):
        target = shell(sandbox, "getent ahosts www.lab.test; true")
        with Agent("attach", "--pid", target.pid, "--children", "--stuck-after", "300ms") as agent:
            target.go()
            lines = agent.finish()
    assert {line["cause"]["id"] for line in of(lines, "lookup_stuck")} == {"ns_silent"}


def test_a_child_that_waits_for_something_else(sandbox: Sandbox) -> None:
    """A child that sleeps, and one whose lookup is healthy, are not told of."""
    with FAULTS["healthy"].setup(sandbox):
        target = shell(sandbox, "getent ahosts www.lab.test; sleep 2; true")
        with Agent("attach", "--pid", target.pid, "--stuck-after", "300ms") as agent:
            target.go()
            lines = agent.finish()
    assert of(lines, "lookup_stuck") == []
    assert of(lines, "lookup") == []
