"""The cache of compiled programs: used only when nobody else can have written it."""

from __future__ import annotations

import os
import pickle
import stat
import struct
import subprocess

import pytest

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe import programs, sources
from ebpfdns.observe.programs import Compiled, MapPlan

NOBODY = 65534
MAP = MapPlan("lookups", 1, 8, 1520, 4352, 0)
CODE = struct.pack("=BBhi", 0x18, 0x11, 0, -1) + bytes(8) + struct.pack("=BBhi", 0x95, 0, 0, 0)
RESULT = Compiled((MAP,), {"begins": CODE}, {"begins": ((0, "lookups"),)}, b"GPL")
VARIANT = sources.Variant()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and a compiler that counts how often it is asked."""
    asked = []

    def compile_apart(text):
        asked.append(text)
        return RESULT

    monkeypatch.setattr(programs, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(programs, "compile_apart", compile_apart)
    return asked


def cached_file():
    [path] = programs.CACHE.iterdir()
    return path


def test_compiled_once(cache):
    """The second start takes the programs from the cache, the same to the last byte."""
    assert programs.compiled(VARIANT) == RESULT
    assert programs.compiled(VARIANT) == RESULT
    assert len(cache) == 1
    assert stat.S_IMODE(cached_file().stat().st_mode) == 0o600
    assert stat.S_IMODE(programs.CACHE.stat().st_mode) & 0o022 == 0


def test_another_variant_is_another_program(cache):
    """What differs in one definition is compiled for itself."""
    programs.compiled(VARIANT)
    programs.compiled(sources.Variant(dns_ports=(5353,)))
    programs.compiled(VARIANT)
    assert len(cache) == 2


def spoil_owner(path):
    os.chown(path, NOBODY, NOBODY)


def spoil_folder_owner(path):
    os.chown(path.parent, NOBODY, NOBODY)


def spoil_mode(path):
    path.chmod(0o620)


def spoil_folder_mode(path):
    path.parent.chmod(0o777)


def spoil_by_cutting(path):
    path.write_bytes(path.read_bytes()[:-10])


def spoil_content(path):
    path.write_bytes(b"\xff" * 100)


def spoil_by_emptying(path):
    path.write_bytes(b"")


def spoil_kind(path):
    path.write_bytes(pickle.dumps({"functions": {}}))


OWNERS = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(spoil_owner, marks=OWNERS),
        pytest.param(spoil_folder_owner, marks=OWNERS),
        spoil_mode,
        spoil_folder_mode,
        spoil_by_cutting,
        spoil_content,
        spoil_by_emptying,
        spoil_kind,
    ],
    ids=lambda spoil: spoil.__name__.removeprefix("spoil_"),
)
def test_what_others_may_have_written_is_not_used(cache, spoil):
    """A file or folder of somebody else's, open to somebody else, or damaged, is compiled anew."""
    programs.compiled(VARIANT)
    spoil(cached_file())
    assert programs.compiled(VARIANT) == RESULT
    assert len(cache) == 2


def test_code_in_a_foreign_file_is_not_run(cache, tmp_path):
    """A pickle that somebody put into an open folder is not even read: reading one runs what it says."""
    programs.compiled(VARIANT)
    trap = tmp_path / "trap"
    cached_file().write_bytes(b"cos\nmkdir\n(V" + str(trap).encode() + b"\ntR.")
    programs.CACHE.chmod(0o777)
    programs.compiled(VARIANT)
    assert not trap.exists()
    assert len(cache) == 2


def test_another_format_has_another_name(cache, monkeypatch):
    """A file that another version of the agent wrote is not found."""
    programs.compiled(VARIANT)
    monkeypatch.setattr(programs, "FORMAT", programs.FORMAT + 1)
    programs.compiled(VARIANT)
    assert len(cache) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(cache, monkeypatch):
    """Where nothing can be kept, each start compiles, and starts."""
    monkeypatch.setattr(programs, "CACHE", programs.CACHE / "no" / "such")
    assert programs.compiled(VARIANT) == programs.compiled(VARIANT) == RESULT
    assert len(cache) == 2


def test_a_full_disk_leaves_no_pieces(cache, monkeypatch):
    """A result that does not fit on the disk leaves nothing behind."""

    def no_room(_path, _target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(programs.Path, "replace", no_room)
    assert programs.compiled(VARIANT) == RESULT
    assert list(programs.CACHE.iterdir()) == []
    assert len(cache) == 1


def test_map_descriptors_go_where_the_map_is_meant():
    """The descriptor of today's map is put into the instruction that loads it, and nothing else changes."""
    code = programs.relocated(RESULT, "begins", {"lookups": 77, "other": 5})
    assert code == CODE[:4] + struct.pack("=i", 77) + CODE[8:]
    assert RESULT.functions["begins"] == CODE


def answering(monkeypatch, stdout, stderr=b"", code=1):
    def run(*_arguments, **_options):
        return subprocess.CompletedProcess([], code, stdout, stderr)

    monkeypatch.setattr(programs.subprocess, "run", run)


def test_a_compiler_that_dies_is_told_in_its_words(monkeypatch):
    """When the compiling process ends without a result, its last words are in the message."""
    answering(monkeypatch, b"", b"bpf/wire.c:5: error: no", -9)
    with pytest.raises(HostCannotTraceError, match=r"code -9\nbpf/wire.c:5: error: no") as caught:
        programs.compile_apart("int x;")
    assert caught.value.remedy == "sudo ebpfdns doctor"


def test_an_error_of_the_compiler_keeps_its_remedy(monkeypatch):
    """What the compiling process found missing is raised here as if it had been found here."""
    missing = HostCannotTraceError("BCC's Python package is missing", remedy="apt-get install python3-bpfcc")
    answering(monkeypatch, pickle.dumps(missing), b"and more")
    with pytest.raises(HostCannotTraceError, match="is missing\nand more") as caught:
        programs.compile_apart("")
    assert caught.value.remedy == "apt-get install python3-bpfcc"


def test_a_compiler_that_does_not_end_is_told(monkeypatch):
    """A compiler that hangs is given up with a message."""

    def run(*_arguments, **_options):
        raise subprocess.TimeoutExpired("python", programs.COMPILE_DEADLINE_S)

    monkeypatch.setattr(programs.subprocess, "run", run)
    with pytest.raises(HostCannotTraceError, match="did not end within"):
        programs.compile_apart("")
