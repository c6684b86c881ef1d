"""Snapshots of processes in a real session: what is stuck gets a whole one, nothing else gets any."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from play import SHORT, play
from program import of_this_machine

from ebpfdns.correlate import items
from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe.recording import read_items

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

THREADS = 13


def looked_at(recording: Path) -> list[dict[str, Any]]:
    """All snapshots of processes that a recording has, in their order."""
    return [
        facts
        for item in read_items(recording)
        if isinstance(item, items.Scan)
        for facts in item.processes.values()
    ]


def test_a_stuck_process_is_looked_at(programs: dict[str, Path], tmp_path: Path) -> None:
    """Its snapshot has the way to the server, threads, limits, sockets and files."""
    recording = tmp_path / "session.rec"
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "one.test", "--threads", THREADS, "--unique"]
    play(FAULTS["silent"], {"it": argv}, "--record", recording, options=SHORT)
    # On a busy machine pyroute2, which says the way, may be loaded only by the second line.
    first = next(facts for facts in looked_at(recording) if facts["routes"])
    server = topology.SERVER_1
    assert first["routes"][server]["error"] is None
    assert first["routes"][server]["kind"] in {"unicast", "local"}
    assert first["routes"][server]["device"]
    assert first["threads_total"] == THREADS + 1
    assert len(first["threads"]) == THREADS + 1
    assert first["limits"]["nofile"] is None or first["limits"]["nofile"] > THREADS
    assert {tuple(entry["remote"]) for entry in first["sockets"] if entry["kind"] == "udp"} == {(server, 53)}
    assert first["fds_total"] >= THREADS
    assert first["frozen"] is not True
    assert first["started_wall_ns"] > 0


def test_healthy_traffic_is_not_looked_at(programs: dict[str, Path], tmp_path: Path) -> None:
    """Lookups that are quick cost no snapshot, also when all of them are told of."""
    recording = tmp_path / "session.rec"
    argv = [of_this_machine(programs, "lookup-glibc"), "--name", "one.test", "--count", 101]
    played = play(FAULTS["healthy"], {"it": argv}, "--all", "--record", recording, options=SHORT)
    assert len(played.of("lookup")) == 101
    assert looked_at(recording) == []
