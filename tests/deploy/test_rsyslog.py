"""The rsyslog pipeline: a real rsyslogd reads event lines, and every one comes out parsed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

import pods
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deploy

CONFIGURATION = pods.ROOT / "deploy/pipelines/rsyslog/ebpfdns.conf"
PATIENCE_S = 20

#: The line of the contract, section 6: what a stuck lookup looks like in full.
STUCK = {
    "v": 1,
    "ts": "2026-03-02T09:14:07.512345Z",
    "event": "lookup_stuck",
    "message": "lookup of proxy.golang.org in flight for 4.0 s:"
    " systemd-resolved cannot reach 9.9.9.9 on port 853 (DNS over TLS)",
    "host": {"name": "ci-7"},
    "process": {
        "pid": 4242,
        "executable": {"name": "api.test", "path": "/tmp/go-build71/b001/api.test"},  # noqa: S108 - a value
        "start_time": "2026-03-02T09:14:03.201Z",
    },
    "thread": {"id": 4250, "name": "api.test"},
    "lookup": {
        "id": "4242-17",
        "name": "proxy.golang.org",
        "api": "go",
        "resolver": "go",
        "status": "in_flight",
        "update": 3,
        "started": "2026-03-02T09:14:03.511201Z",
        "elapsed_ms": 4001.1,
        "queries": [
            {
                "name": "proxy.golang.org.",
                "type": "A",
                "id": 51324,
                "server": {"address": "127.0.0.53", "port": 53},
                "network": {"transport": "udp"},
                "reply_ms": None,
                "truncated": False,
                "state": "waiting",
            }
        ],
    },
    "cause": {
        "id": "resolved_dot_blocked",
        "confidence": "confirmed",
        "summary": "systemd-resolved must use DNS over TLS, and 9.9.9.9:853 does not answer.",
        "evidence": [{"fact": "no_reply", "text": "no answer for 4.0 s", "waited_ms": 4000.7}],
        "remedy": "Open TCP 853 to 9.9.9.9, or: resolvectl dnsovertls eth0 opportunistic",
    },
    "chain": [],
}
STATS = {
    "v": 1,
    "ts": "2026-03-02T09:15:00.000000Z",
    "event": "stats",
    "message": "7 lookups",
    "host": {"name": "ci-7"},
}


def stuck(number: int, *, name: str = "proxy.golang.org", queries: int = 1) -> dict:
    """A stuck lookup like the contract's, told apart by its id."""
    lookup = STUCK["lookup"] | {
        "id": f"4242-{number}",
        "name": name,
        "queries": STUCK["lookup"]["queries"] * queries,
    }
    return STUCK | {"lookup": lookup}


def append(path: Path, events: list[dict]) -> None:
    """Write event lines as the agent does: whole, at the end of the file."""
    with path.open("a") as file:
        file.write("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events))


class Pipeline:
    """A running rsyslogd with the project's configuration, moved into a directory of its own."""

    def __init__(self, home: Path, *, collector: int | None = None) -> None:
        self.home = home
        self.logs = home / "logs"
        self.collector = collector
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.logs, home / "spool"):
            folder.mkdir(parents=True, exist_ok=True)

    def configuration(self) -> Path:
        """Write the project's configuration with its paths moved, and the main file that includes it."""
        text = CONFIGURATION.read_text()
        assert "/var/log/ebpfdns/" in text
        text = text.replace("/var/log/ebpfdns/", f"{self.logs}/")
        text = text.replace("/var/log/ebpfdns-", f"{self.home}/")
        if self.collector is not None:
            text = re.sub(r"^(\s*)#\| ", r"\1", text, flags=re.MULTILINE)
            text = text.replace("collector.example", "127.0.0.1").replace('"5170"', f'"{self.collector}"')
        (self.home / "ebpfdns.conf").write_text(text)
        main = self.home / "main.conf"
        # As Debian's rsyslog.conf does: a local module is loaded before the drop-in files are read.
        main.write_text(
            f'global(workDirectory="{self.home}/spool")\n'
            'module(load="imuxsock" SysSock.Use="off")\n'
            f'include(file="{self.home}/ebpfdns.conf")\n'
        )
        return main

    def __enter__(self) -> Self:
        command = ["rsyslogd", "-n", "-f", self.configuration(), "-i", self.home / "pid"]
        with (self.home / "stderr").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": RSYSLOG_PATH})
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    def events(self, count: int) -> list[dict]:
        """The parsed events, as soon as there are `count` of them."""
        output = self.home / "events.log"
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            lines = output.read_text().splitlines(keepends=True) if output.exists() else []
            if len(lines) >= count and lines[-1].endswith("\n"):
                return [json.loads(line) for line in lines]
            time.sleep(0.02)  # between two looks at the fact that is waited for
        raise AssertionError(f"{len(lines)} of {count} lines came out; {(self.home / 'stderr').read_text()}")


RSYSLOG_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(autouse=True)
def rsyslogd():
    """Skip, with the remedy, where rsyslogd is missing."""
    if shutil.which("rsyslogd", path=RSYSLOG_PATH) is None:
        pytest.skip("rsyslogd is missing: apt-get install rsyslog")
    if os.geteuid() != 0:
        pytest.skip("rsyslogd wants root, and so does this test")


def test_configuration_is_accepted_without_a_warning(tmp_path):
    """`rsyslogd -N1` reads the configuration, with and without the forwarding block, and warns of nothing."""
    for collector in (None, 5170):
        main = Pipeline(tmp_path / str(collector), collector=collector).configuration()
        result = subprocess.run(
            ["rsyslogd", "-N1", "-f", main],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": RSYSLOG_PATH},
        )
        assert result.returncode == 0, result.stderr
        assert "error" not in result.stderr
        assert "warning" not in result.stderr


def test_a_stuck_lookup_arrives_with_its_fields(tmp_path):
    """The contract's example line comes out flat, with cause, name and pid, numbers as numbers."""
    with Pipeline(tmp_path) as pipeline:
        append(pipeline.logs / "4242.jsonl", [STUCK])
        [event] = pipeline.events(1)
    assert event == {
        "ts": STUCK["ts"],
        "host.name": "ci-7",
        "event": "lookup_stuck",
        "process.pid": 4242,
        "process.executable.name": "api.test",
        "lookup.id": "4242-17",
        "lookup.name": "proxy.golang.org",
        "lookup.status": "in_flight",
        "lookup.elapsed_ms": 4001.1,
        "cause.id": "resolved_dot_blocked",
        "cause.confidence": "confirmed",
        "cause.remedy": STUCK["cause"]["remedy"],
        "message": STUCK["message"],
    }


def test_a_line_without_a_lookup_arrives_without_empty_fields(tmp_path):
    """What a line does not have is absent after the pipeline too, not empty and not zero."""
    with Pipeline(tmp_path) as pipeline:
        append(pipeline.logs / "4242.jsonl", [STATS])
        [event] = pipeline.events(1)
    assert event == {"ts": STATS["ts"], "host.name": "ci-7", "event": "stats", "message": "7 lookups"}


def test_no_line_is_lost_when_the_file_is_rotated(tmp_path):
    """Lines before, during (late ones into the moved file) and after two rotations all arrive, each once."""
    with Pipeline(tmp_path) as pipeline:
        live = pipeline.logs / "4242.jsonl"
        append(live, [stuck(n) for n in range(100)])
        pipeline.events(100)
        for turn in (1, 2):
            moved = live.with_suffix(f".jsonl.{turn}")
            live.rename(moved)
            # Until it gets SIGHUP the agent still writes here.
            append(moved, [stuck(turn * 1000 + n) for n in range(10)])
            append(live, [stuck(turn * 1000 + 500 + n) for n in range(100)])
            pipeline.events(100 + turn * 110)
        events = pipeline.events(320)
    ids = [event["lookup.id"] for event in events]
    assert len(ids) == len(set(ids)) == 320


def test_lines_written_while_rsyslog_was_down_arrive_once(tmp_path):
    """After a restart of rsyslogd reading goes on where it stopped: nothing twice, nothing left out."""
    live = tmp_path / "logs/4242.jsonl"
    with Pipeline(tmp_path) as pipeline:
        append(live, [stuck(1)])
        pipeline.events(1)
    append(live, [stuck(2)])
    with Pipeline(tmp_path) as pipeline:
        append(live, [stuck(3)])
        events = pipeline.events(3)
    assert [event["lookup.id"] for event in events] == ["4242-1", "4242-2", "4242-3"]


def test_a_line_longer_than_the_default_limit_is_not_cut(tmp_path):
    """A line of many queries, far beyond rsyslog's default of 8 KiB, is parsed as one event."""
    long = stuck(1, queries=300)
    assert len(json.dumps(long)) > 50_000
    with Pipeline(tmp_path) as pipeline:
        append(pipeline.logs / "4242.jsonl", [long])
        [event] = pipeline.events(1)
    assert event["cause.id"] == "resolved_dot_blocked"
    assert not (tmp_path / "unparsed.log").exists()


def test_text_with_quotes_and_escapes_survives(tmp_path):
    """A name with quotes, backslashes, control characters and non-ASCII text comes out as it went in."""
    name = 'a"b\\c\td\u00e9\u2603'
    with Pipeline(tmp_path) as pipeline:
        append(pipeline.logs / "4242.jsonl", [stuck(1, name=name)])
        [event] = pipeline.events(1)
    assert event["lookup.name"] == name


def test_what_is_not_json_is_kept_aside(tmp_path):
    """A line that is no JSON neither stops the pipeline nor is dropped: it goes to a file for such lines."""
    with Pipeline(tmp_path) as pipeline:
        live = pipeline.logs / "4242.jsonl"
        live.write_text("Traceback (most recent call last):\n")
        append(live, [stuck(1)])
        pipeline.events(1)
    assert "Traceback" in (tmp_path / "unparsed.log").read_text()


def test_a_collector_gets_the_same_lines(tmp_path):
    """With the forwarding block switched on, a TCP collector receives what the local file gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        with Pipeline(tmp_path, collector=server.getsockname()[1]) as pipeline:
            append(pipeline.logs / "4242.jsonl", [stuck(1), STATS, stuck(2)])
            expected = pipeline.events(3)
            connection, _ = server.accept()
            with connection, connection.makefile() as stream:
                received = [json.loads(stream.readline()) for _ in expected]
    assert received == expected
