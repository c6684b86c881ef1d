"""Recorded sessions of the real agent, played again: the very same lines, up to wherever a recording ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promises
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.commands.replay import command
from ebpfdns.observe.recording import read_items
from ebpfdns.pipeline import Pipeline
from ebpfdns.publish.rendering import renderer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
#: story → the cause of each `lookup` line; record.py says how each was made
CAUSES: dict[str, list[str | None]] = {
    "healthy": [None],
    "reply_not_read": ["reply_not_read"],
    "target_stopped": ["target_stopped"],
    "silent": ["ns_silent"],
    "silent-musl": ["ns_silent"],
    "silent-wire": ["ns_silent"],
    "silent-before": ["ns_silent"],
    "refused": ["ns_refused"],
    "servfail": ["rcode_retry"],
    "unreachable": ["ns_unreachable"],
    "nxdomain": [None],
    "tcp": [None],
    "first_ns_dead": ["first_ns_dead"],
    "one_reply_lost": ["one_reply_lost"],
    "late_reply": ["late_reply"],
    "reply_ignored": ["reply_ignored"],
    "search_amplification": ["search_amplification"],
    "no_nameserver": ["no_nameserver"],
    "stale_resolv_conf": [None, "stale_resolv_conf"],
    "bypass": ["bypass"],
    "edns_dropped": [None, "edns_dropped"],
    "fragments_dropped": [None, "edns_dropped"],
    "local_firewall": ["local_firewall"],
    "threads": ["ns_silent", "ns_silent", "ns_silent"],
    "child_process": ["child_process"],
    "tcp53_blocked": ["tcp53_blocked"],
    "tcp53_silent": ["tcp53_silent"],
    "connect_after_dns": [None],
    "ipv6_first_blackholed": [None],
    "tls_stall": [None],
    "fork_lock_inherited": ["ns_silent", "fork_lock_inherited"],
    "fd_exhausted": ["fd_exhausted"],
    "hosts_file_huge": ["hosts_file_huge"],
    "nsswitch_order_stall": ["nsswitch_order_stall"],
    "go-coalesced_wait": ["coalesced_wait", "ns_silent", *["coalesced_wait"] * 8],
    "go-cgo_thread_limit": ["ns_silent"] * 13,
    "go-reply_not_read": ["reply_not_read"],
    "go-stale_resolv_conf": ["stale_resolv_conf"],
    "go-connect_after_dns": [None],
    # two ask, two leave the queue and ask, and then the fifth
    "threadpool_starved": [
        *("ns_silent", "ns_silent", "threadpool_starved", "threadpool_starved"),
        *("ns_silent", "ns_silent", "threadpool_starved", "ns_silent"),
    ],
    "nscd_stall": ["nscd_stall"],
    "resolved_ipc_stall": ["resolved_ipc_stall"],
    "resolved_stub_silent": ["resolved_stub_silent"],
    "resolved_dot_blocked": ["resolved_dot_blocked"],
    "resolved_dot_stalled": ["resolved_dot_blocked"],
    "resolved_dot_silent": ["resolved_dot_blocked"],
    "resolved_degraded": ["resolved_degraded"],
    "resolved_upstream_silent": ["resolved_upstream_silent"],
    "resolved_dnssec": ["rcode_retry"],
    "forwarder_upstream_silent": ["forwarder_upstream_silent"],
    "avahi_stall": ["avahi_stall"],
    "mdns_timeout": ["mdns_timeout"],
}
#: story → what its connects are stuck for
CONNECT_CAUSES = {
    "go-connect_after_dns": ["connect_after_dns"] * 3,
    "tcp53_blocked": ["tcp53_blocked"] * 3,
    "connect_after_dns": ["connect_after_dns"] * 3,
    "ipv6_first_blackholed": ["connect_after_dns", "connect_after_dns", "ipv6_first_blackholed"],
    "tls_stall": ["tls_stall"] * 3,
}
AGAIN = "what a recording holds has changed: sudo .venv/bin/python tests/replay/record.py"

NODE = {"name": "node", "path": "/usr/bin/node"}

every_story = pytest.mark.parametrize("story", CAUSES)


def recording(story: str) -> Path:
    return HERE / f"{story}.rec"


def printed(story: str) -> bytes:
    return (HERE / f"{story}.jsonl").read_bytes()


def replayed(path: Path) -> Iterator[bytes]:
    """The text that follows from each item."""
    pipeline, render = Pipeline(), renderer("json")
    for item in read_items(path):
        yield b"".join(render(pipeline.feed(item)))


@every_story
def test_replay_prints_the_very_lines(story: str) -> None:
    """`ebpfdns replay` prints, byte for byte, what the agent printed while it recorded."""
    result = CliRunner().invoke(command, [str(recording(story))])
    assert result.exit_code == 0, f"{result.exception} ({AGAIN})"
    assert result.stdout_bytes == printed(story), AGAIN


@every_story
def test_lines_keep_the_contract(story: str) -> None:
    """The lines of a story have the shapes of today's schema, and agree with each other."""
    promises.check([json.loads(line) for line in printed(story).splitlines()], was_stopped=False)


@every_story
def test_a_story_has_its_cause(story: str) -> None:
    """The lookups of a story end with the cause that the story is about."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in printed(story).splitlines()]
    causes = [line.get("cause", {}).get("id") for line in lines if line["event"] == "lookup"]
    assert causes == CAUSES[story]
    stuck = [line["cause"]["id"] for line in lines if line["event"] == "connect_stuck"]
    assert stuck == CONNECT_CAUSES.get(story, [])


@every_story
def test_every_whole_item_counts(story: str, tmp_path: Path) -> None:
    """Cut off after any item, or in the middle of the next, a recording gives the lines up to there."""
    *whole, _ = recording(story).read_bytes().split(b"\n")
    texts = list(replayed(recording(story)))
    assert len(texts) == len(whole) - 1  # the first line says what the file is
    cut = tmp_path / "cut.rec"
    for count in range(1, len(whole) + 1):
        after = b"".join(line + b"\n" for line in whole[:count])
        half = b"".join(line[: len(line) // 2] for line in whole[count : count + 1])
        cut.write_bytes(after + half)
        assert list(replayed(cut)) == texts[: count - 1]


@given(where=st.floats(0, 1), story=st.sampled_from(list(CAUSES)))
@settings(deadline=None)
def test_a_cut_anywhere_gives_a_beginning(
    tmp_path_factory: pytest.TempPathFactory, where: float, story: str
) -> None:
    """Cut off at any byte behind its first line, a recording gives whole lines, and a beginning of all."""
    whole = recording(story).read_bytes()
    first = whole.index(b"\n") + 1
    cut = tmp_path_factory.getbasetemp() / "cut.rec"
    cut.write_bytes(whole[: first + round(where * (len(whole) - first))])
    text = b"".join(replayed(cut))
    assert printed(story).startswith(text)
    assert not text or text.endswith(b"\n")


@every_story
def test_nothing_tells_where_it_was_recorded(story: str) -> None:
    """A recording in this folder names no machine and no folder of the one it was made on."""
    for line in printed(story).splitlines():
        told = json.loads(line)
        assert told["host"] == {"name": "ci-7"}
        executable = told.get("process", {}).get("executable")
        programs = [{"name": name, "path": f"/opt/{name}"} for name in ("lookup", "eventloop", "wire")]
        daemons = [{"name": name, "path": f"/mnt/{name}"} for name in ("systemd-resolved", "dnsmasq")]
        assert executable in (None, NODE, *programs, *daemons)
    assert str(HERE.parents[1]) not in recording(story).read_text()


def test_every_recording_is_played() -> None:
    """No recording lies here without a story, and no story without its lines."""
    assert {path.stem for path in HERE.glob("*.rec")} == set(CAUSES)
    assert {path.stem for path in HERE.glob("*.jsonl")} == set(CAUSES)
