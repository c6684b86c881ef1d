"""`ebpfdns inspect --name` as a user types it: one name asked for by every way, for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.namespace import PACKAGE_PARENT
from ebpfdns.publish.schema.inspection import schema

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]

STUB = "127.0.0.53"
GOOD = {"answer": [topology.WEB]}
NAME = ("--name", "www.lab.test")


def inspect(sandbox: Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    """Of a process in the sandbox."""
    command = [sys.executable, "-m", "ebpfdns", "inspect", "--pid", str(sandbox.holder_pid), *words]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(PACKAGE_PARENT)},
    )


def compared(sandbox: Sandbox, *words: str) -> dict[str, Any]:
    """`comparison` of the report, which fits its schema."""
    done = inspect(sandbox, *NAME, "--format", "json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    jsonschema.validate(report, schema())
    found: dict[str, Any] = report["comparison"]
    return found


def outcomes(found: dict[str, Any]) -> dict[tuple[str, str, bool], str]:
    """(server or rules, transport, EDNS0) → what came of it."""
    rows = found["answers"]
    return {(row["rules"] or row["server"], row["transport"], row["edns"]): row["outcome"] for row in rows}


def test_a_silent_stub_whose_upstream_answers(sandbox: Sandbox) -> None:
    """The stub is named as the broken hop, and what it has to ask over TLS as blocked."""
    silent = ServerPlan((STUB,), ({"drop": True},))
    fault = Fault(
        "stub", "", nameservers=(STUB,), servers=(silent, ServerPlan((topology.SERVER_1,), (GOOD,)))
    )
    with fault.setup(sandbox):
        found = compared(sandbox, "--server", topology.SERVER_1, "--timeout", "300ms")
        pretty = inspect(
            sandbox, *NAME, "--server", topology.SERVER_1, "--timeout", "300ms", "--format", "pretty"
        )
    assert outcomes(found) == {
        ("libc", "udp", False): "timed_out",
        ("go", "udp", True): "timed_out",
        (STUB, "udp", False): "timed_out",
        (STUB, "udp", True): "timed_out",
        (STUB, "tcp", False): "timed_out",
        (topology.SERVER_1, "udp", False): "answered",
        (topology.SERVER_1, "udp", True): "answered",
        (topology.SERVER_1, "tcp", False): "answered",
        (topology.SERVER_1, "dot", True): "refused",
    }
    ids = [one["id"] for one in found["conclusions"]]
    assert ids == ["stub_is_broken", "dot_is_blocked", "server_is_dead"]
    assert {tuple(row["addresses"]) for row in found["answers"] if row["outcome"] == "answered"} == {
        (topology.WEB,)
    }
    assert "9 ways were tried by sending questions about www.lab.test." in pretty.stdout
    assert "the local resolver in between is the broken hop" in " ".join(pretty.stdout.split())


def test_a_server_that_drops_edns(sandbox: Sandbox) -> None:
    """Only plain questions are answered: Go's rules fail, libc's do not."""
    script = ({"edns": True, "drop": True}, GOOD)
    fault = Fault("edns", "", servers=(ServerPlan((topology.SERVER_1,), script),))
    with fault.setup(sandbox):
        found = compared(sandbox, "--timeout", "300ms")
    assert [one["id"] for one in found["conclusions"]] == ["edns_is_dropped", "only_libc_works"]


def test_nothing_is_sent_unless_it_is_asked_for(sandbox: Sandbox) -> None:
    """Without --name no question reaches the server, and `comparison` is null."""
    fault = Fault("healthy", "", servers=(ServerPlan((topology.SERVER_1,), (GOOD,)),))
    with fault.setup(sandbox) as running:
        done = inspect(sandbox, "--format", "json")
        assert json.loads(done.stdout)["comparison"] is None
        assert running.queries() == []
        assert [row["outcome"] for row in compared(sandbox)["answers"]] == ["answered"] * 5
        assert len(running.queries()) == 5


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--name", "a..b"), "is no name that can be looked up"),
        (("--name", "a" * 64 + ".test"), "is no name that can be looked up"),
        (("--name", "\x1b[2J"), "is no name that can be looked up"),
        (("--name", "a.test", "--server", "one.one"), "is no IP address"),
    ],
)
def test_what_cannot_be_asked_for(sandbox: Sandbox, words: tuple[str, ...], reason: str) -> None:
    """A name that fits into no question is a usage error, and so is a server that is no address."""
    done = inspect(sandbox, *words)
    assert done.returncode == 2
    assert reason in done.stderr
