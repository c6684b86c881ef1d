"""Recordings: what was fed is read back, up to wherever the file ends, and a full disk is counted."""

from __future__ import annotations

import json
import stat

import facts
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.correlate import items
from ebpfdns.errors import EbpfdnsError, UsageError
from ebpfdns.observe.recording import Recorder, read_items

FED = [
    facts.started(),
    facts.attached(),
    facts.frames(1, facts.lookup(0, end=1), b"\xff\x00"),
    facts.scan(2, facts.lookup(1), threads={"1": {"syscall": "poll"}}, vanished=[("lookup", 1, 2)]),
    facts.stalls(2.5, facts.stall()),
    items.Children(**facts.clock(2.7), lookups=[facts.child_lookup(2)]),
    items.Lost(**facts.clock(3), totals={"kernel_ring": 1}),
    facts.stats(4),
    items.Gone(**facts.clock(5), pid=1, status="exited"),
]


def record(path, fed):
    recorder = Recorder(path)
    for item in fed:
        recorder.record(item)
    recorder.close()
    return recorder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a recording with every kind of item."""
    path = tmp_path_factory.mktemp("recording") / "whole"
    assert record(path, FED).lost == 0
    return path.read_bytes()


def read(folder, content):
    path = folder / "recording"
    path.write_bytes(content)
    return list(read_items(path))


def test_what_was_fed_comes_back(tmp_path, whole):
    """Every kind of item is read back equal and in order."""
    assert {type(item) for item in FED} == set(items.ITEMS.values())
    assert read(tmp_path, whole) == FED


def test_only_its_owner_may_read_it(tmp_path):
    """A recording holds names and addresses, so nobody else may read it."""
    record(tmp_path / "recording", FED)
    assert stat.S_IMODE((tmp_path / "recording").stat().st_mode) == 0o600


@settings(max_examples=40)
@given(data=st.data())
def test_cut_anywhere_it_reads_up_to_the_cut(tmp_path_factory, whole, data):
    """A recording that ends in the middle of a line gives the whole items before it."""
    header_bytes = whole.index(b"\n") + 1
    cut = data.draw(st.integers(header_bytes, len(whole)))
    complete = whole[:cut].count(b"\n") - 1
    assert read(tmp_path_factory.mktemp("cut"), whole[:cut]) == FED[:complete]


@pytest.mark.parametrize("line", [b"{}", b"null", b'{"item":"frames"}', b"\xff\xfe", b"{"], ids=repr)
def test_a_damaged_line_is_told(tmp_path, whole, line):
    """A whole line that is no item ends the reading with an error, after the items before it."""
    path = tmp_path / "recording"
    path.write_bytes(whole + line + b"\n")
    found = []
    with pytest.raises(EbpfdnsError, match="is damaged"):
        found.extend(read_items(path))  # keeps what came before the error
    assert found == FED


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"text\n", b"[]\n", b"\xff\n", b'{"v":1}\n', b"\x1f\x8b\x08\n"],
    ids=repr,
)
def test_another_file_is_no_recording(tmp_path, content):
    """A file without the header is refused as such, with how to make a recording."""
    with pytest.raises(UsageError, match="is no recording") as caught:
        read(tmp_path, content)
    assert "--record" in caught.value.remedy


def test_another_format_is_refused(tmp_path, whole):
    """A recording of another format is refused by its number."""
    header = json.loads(whole.split(b"\n")[0]) | {"format": 99}
    with pytest.raises(UsageError, match="another format"):
        read(tmp_path, json.dumps(header).encode() + b"\n")


def test_a_missing_file_is_told(tmp_path):
    """A recording that does not exist is a mistake of the caller's."""
    with pytest.raises(UsageError, match="No such file"):
        list(read_items(tmp_path / "missing"))


def test_a_recording_that_cannot_be_made_is_told(tmp_path):
    """A folder that does not exist is told before tracing begins."""
    with pytest.raises(EbpfdnsError, match="cannot write the recording"):
        Recorder(tmp_path / "missing" / "recording")


def test_a_full_disk_is_counted():
    """On a full disk nothing is raised, and every item is counted as lost."""
    assert record("/dev/full", FED).lost == len(FED)


class SmallDisk:
    """A file on a disk with room for so many bytes, which writes a few at a time."""

    def __init__(self, room_bytes):
        self.content = b""
        self.room_bytes = room_bytes

    def write(self, data):
        taken = bytes(data[: min(7, self.room_bytes - len(self.content))])
        if not taken:
            raise OSError(28, "No space left on device")
        self.content += taken
        return len(taken)

    def close(self):
        """Nothing to close."""


@settings(max_examples=40)
@given(data=st.data())
def test_a_disk_that_fills_up_keeps_what_fits(tmp_path_factory, whole, data):
    """What was written before the disk was full can be replayed, and the rest is counted."""
    folder = tmp_path_factory.mktemp("small")
    recorder = Recorder(folder / "first")
    recorder._file.close()
    header = whole[: whole.index(b"\n") + 1]
    recorder._file = SmallDisk(data.draw(st.integers(0, len(whole) - len(header))))
    for item in FED:
        recorder.record(item)
    recorder.close()
    kept = read(folder, header + recorder._file.content)
    assert kept == FED[: len(kept)]
    assert len(kept) + recorder.lost == len(FED)


def test_text_that_is_no_utf8_is_kept(tmp_path):
    """A path with a byte that is not UTF-8 is recorded like any other."""
    odd = facts.scan(1, threads={"1": {"path": b"/tmp/\xff".decode("utf-8", "surrogateescape")}})
    record(tmp_path / "recording", [odd, FED[0]])
    assert list(read_items(tmp_path / "recording")) == [odd, FED[0]]
