"""`ebpfdns demo go-test-hang` as a user runs it: a real `go test`, a real hang, and both ways out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import gotool
import pytest
from agent import environment

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

DEADLINE_S = 110


def demo(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", "-m", "ebpfdns", "demo", "go-test-hang", *words]
    return subprocess.run(
        argv, env=environment() | changes, capture_output=True, check=False, text=True, timeout=DEADLINE_S
    )


@pytest.fixture(scope="module")
def played() -> subprocess.CompletedProcess[str]:
    try:
        go = gotool.go(gotool.NEWEST)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return demo(PATH=f"{go.parent}:{os.environ['PATH']}")


def test_the_hang_is_told_while_it_lasts_and_both_ways_out_work(
    played: subprocess.CompletedProcess[str],
) -> None:
    """The stuck test is told of with its cause, 5 is the code; with each way out the test passes."""
    assert played.returncode == 0, played.stderr + played.stdout
    lines: list[dict[str, Any]] = [
        json.loads(text) for text in played.stdout.splitlines() if text.startswith("{")
    ]
    stuck = [line for line in lines if line["event"] == "lookup_stuck"]
    assert {line["lookup"]["name"] for line in stuck} == {"proxy.golang.org"}
    assert {line["process"]["executable"]["name"] for line in stuck} == {"lookup.test"}
    assert stuck[0]["lookup"]["elapsed_ms"] < 2000
    assert {line["lookup"]["api"] for line in stuck} == {"go"}  # held, and probed before its first lookup
    assert all(line["lookup"]["goroutine"]["id"] > 0 for line in stuck)
    assert len({line["lookup"]["id"] for line in stuck}) == 1
    assert {line["cause"]["id"] for line in stuck} == {"forwarder_upstream_silent"}
    assert "192.0.2.99:853 does not answer its connection attempts" in stuck[-1]["cause"]["summary"]
    assert [hop["connects"][0]["tcp"]["state"] for hop in stuck[-1]["chain"]] == ["SYN_SENT"]
    assert played.stdout.count("--- FAIL: TestDefaultResolver (5.") == 1
    assert "i/o timeout" in played.stdout
    assert "it ended with 5:" in played.stdout
    assert "--- PASS: TestOwnResolver" in played.stdout
    assert "--- PASS: TestDefaultResolver" in played.stdout


def test_the_packets_beside_it_are_those_of_the_hang(played: subprocess.CompletedProcess[str]) -> None:
    """Shown beside it: both questions to the stub, and SYNs to the upstream's port 853, none answered."""
    packets = [text for text in played.stdout.splitlines() if text.startswith("  | ") and " IP " in text]
    for wanted in ("> 127.0.0.53.53: ", " A? proxy.golang.org.", " AAAA? proxy.golang.org."):
        assert any(wanted in text for text in packets), packets
    syns = [text for text in packets if "> 192.0.2.99.853: Flags [S]" in text]
    assert len(syns) >= 3
    assert not [text for text in packets if "853 >" in text or "Flags [S.]" in text]


def test_without_go_it_says_how_to_get_it(tmp_path: os.PathLike[str]) -> None:
    """Where there is no Go the message names what to install, and nothing has been started."""
    if any(os.path.exists(place) for place in ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")):  # noqa: PTH110
        pytest.skip("there is Go in one of the usual places")
    if (gotool.ROOT / ".go").exists():
        pytest.skip("there is Go in this checkout")
    ran = demo(PATH=str(tmp_path))
    assert ran.returncode == 1
    assert "needs Go" in ran.stderr
    assert "try: apt-get install golang-go" in ran.stderr
