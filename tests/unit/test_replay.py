"""`ebpfdns replay`: the lines of a recording, without root and without BPF."""

from __future__ import annotations

import facts
import pytest
from click.testing import CliRunner
from facts import frames, lookup, query, scan

from ebpfdns.commands.replay import command
from ebpfdns.errors import EbpfdnsError
from ebpfdns.observe.recording import Recorder
from ebpfdns.pipeline import Pipeline
from ebpfdns.publish.rendering import renderer

FED = (
    facts.started(),
    facts.attached(),
    scan(1.0, lookup(0, query())),
    scan(2.0, lookup(0, query(resent_ns=facts.at(1.5), attempts=2))),
    frames(2.6, lookup(0, query(reply=2.5), end=2.5)),
    facts.stats(3),
)


@pytest.fixture
def recording(tmp_path):
    """A recording of a lookup that gets stuck and ends."""
    path = tmp_path / "stuck.rec"
    recorder = Recorder(path)
    for item in FED:
        recorder.record(item)
    recorder.close()
    return path


def printed(fed, form="json"):
    pipeline, render = Pipeline(), renderer(form)
    return b"".join(text for item in fed for text in render(pipeline.feed(item)))


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_replay_prints_what_was_printed(recording, form):
    """The lines are, byte for byte, those that the same items gave while they were recorded."""
    result = CliRunner().invoke(command, [str(recording), "--format", form])
    assert result.exit_code == 0
    assert result.stdout_bytes == printed(FED, form)
    assert result.stdout_bytes.count(b"\n") > 3


def test_a_cut_recording_replays_up_to_the_cut(recording):
    """Of a recording that ends in the middle of an item, the lines before that item are printed."""
    recording.write_bytes(recording.read_bytes()[:-5])
    result = CliRunner().invoke(command, [str(recording)])
    assert result.exit_code == 0
    assert result.stdout_bytes == printed(FED[:-1])


def test_a_damaged_recording_tells_what_it_can(recording):
    """Of a recording with a broken line in it, what comes before is printed, and then the error is told."""
    recording.write_bytes(recording.read_bytes() + b"{}\n")
    result = CliRunner().invoke(command, [str(recording)])
    assert isinstance(result.exception, EbpfdnsError)
    assert result.stdout_bytes == printed(FED)
