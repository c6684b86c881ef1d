"""What is known of a Go program's file: functions, returns and layout; told apart from what is not known."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from go_elf import BASE, TEXT, Made, build_info, program

from ebpfdns.observe import go_layouts, go_program, programs
from ebpfdns.observe.go_program import find

if TYPE_CHECKING:
    from pathlib import Path

EXCHANGE, LOOKUP, ERROR = "net.(*Resolver).exchange", "net.(*Resolver).lookupIPAddr", "net.(*DNSError).Error"
#: nop; ret; nop; ret
TWO_RETURNS = Made(bytes.fromhex("90c390c3"))
FUNCTIONS = {"runtime.main": Made(b"\x90"), LOOKUP: TWO_RETURNS, EXCHANGE: Made(b"\x90" * 40 + b"\xc3")}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CACHE", tmp_path / "cache")


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each search of a file."""
    done: list[int] = []
    search = go_program.open_tables

    def counted(elf):
        done.append(elf.fd)
        return search(elf)

    monkeypatch.setattr(go_program, "open_tables", counted)
    return done


def write(path: Path, functions=FUNCTIONS, version: str = "go1.27.3", **how) -> Path:
    path.write_bytes(program(functions, info=build_info(version, "build\tCGO_ENABLED=0\n"), **how))
    return path


def found_in(path: Path) -> go_program.GoProgram:
    found = find(str(path), of_any_machine=True)
    assert found is not None
    return found


def test_functions_are_told_by_their_places_in_the_file(tmp_path: Path) -> None:
    """Entry and returns are offsets; only what is wanted and there is told; settings come along."""
    found = found_in(write(tmp_path / "program"))
    assert set(found.functions) == {LOOKUP, EXCHANGE}
    lookup = found.functions[LOOKUP]
    assert (lookup.entry, lookup.returns, lookup.address) == (
        TEXT + 32,
        (TEXT + 33, TEXT + 35),
        BASE + TEXT + 32,
    )
    assert (found.version, found.version_text) == ((1, 27, 3), "go1.27.3")
    assert (found.settings, found.is_stripped, found.load_base) == ({"CGO_ENABLED": "0"}, True, BASE)
    assert (found.missing, found.uses_cgo) == ((), False)
    assert found.layout == go_layouts.layout_of((1, 27), "amd64")
    assert (found.inode, found.device) == (os.stat(found.path).st_ino, os.stat(found.path).st_dev)  # noqa: PTH116


def test_a_function_that_is_not_understood_is_missing(tmp_path: Path) -> None:
    """It gets no probe, and its name is told; an error's method needs no returns."""
    functions = FUNCTIONS | {EXCHANGE: Made(b"\x06\xc3"), ERROR: Made(b"\x06\xc3")}
    found = found_in(write(tmp_path / "program", functions))
    assert set(found.functions) == {LOOKUP, ERROR}
    assert found.missing == (f"{EXCHANGE}: its code at {BASE + TEXT + 64:#x} is not understood",)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("go1.17.13", "go1.17.13 is older than Go 1.18"),
        ("go1.99", "go1.99 is newer than Go 1.27; goroutine ids"),
    ],
)
def test_a_version_that_is_not_known_is_told(tmp_path: Path, version: str, words: str) -> None:
    """An old one has no layout; a new one the newest row, and a doubt."""
    found = found_in(write(tmp_path / "program", version=version))
    assert words in found.missing[0]
    assert (found.layout is None) == (version == "go1.17.13")
    assert found.layout is None or not found.layout.is_verified
    assert bool(found.functions) == (found.layout is not None)


def test_a_program_without_its_table_is_still_one_of_go(tmp_path: Path) -> None:
    """Version and settings are known, and why there are no functions."""
    found = found_in(write(tmp_path / "program", has_module=False))
    assert found.functions == {}
    assert found.missing == (
        "lookups of Go: where its code starts is not said (no runtime.moduledata was found)",
    )


def test_what_is_not_of_go_is_none(tmp_path: Path) -> None:
    """Another program, a text, a folder, a file that is not there."""
    (tmp_path / "other").write_bytes(program(FUNCTIONS))
    (tmp_path / "text").write_text("#!/bin/sh\n")
    for name in ("other", "text", ".", "nowhere"):
        assert find(str(tmp_path / name), of_any_machine=True) is None


def test_a_file_is_searched_once(tmp_path: Path, searches: list[int]) -> None:
    """The second attach, and that to a copy of the program's size and build id, find it in the cache."""
    path = write(tmp_path / "program")
    first = found_in(path)
    assert found_in(path).functions == first.functions
    assert len(searches) == 1


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"functions": [[1, 2, [3]]], "missing": []}', b'{"functions": 1}']
)
def test_a_damaged_cache_is_no_cache(tmp_path: Path, searches: list[int], damage: bytes) -> None:
    """What cannot be read, or has another form, is found anew and written anew."""
    path = write(tmp_path / "program")
    first = found_in(path)
    [kept] = programs.CACHE.iterdir()
    kept.write_bytes(damage)
    assert found_in(path).functions == first.functions
    assert found_in(path).functions == first.functions
    assert len(searches) == 2


def test_a_cache_that_others_may_write_is_not_used(tmp_path: Path, searches: list[int]) -> None:
    """It says where breakpoints go: only the agent's own word counts."""
    path = write(tmp_path / "program")
    found_in(path)
    [kept] = programs.CACHE.iterdir()
    kept.chmod(0o666)
    found_in(path)
    assert len(searches) == 2


def test_other_code_under_the_same_identity_is_searched_anew(tmp_path: Path, searches: list[int]) -> None:
    """A build id can be chosen, and a time set: what is kept holds for the very same code only."""
    path = write(tmp_path / "program")
    found_in(path)
    before = path.stat()
    contents = bytearray(path.read_bytes())
    contents[TEXT + 32 : TEXT + 36] = bytes.fromhex("c3909090")
    path.write_bytes(contents)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found_in(path).functions[LOOKUP].returns == (TEXT + 32,)
    assert len(searches) == 2


def test_places_follow_from_gos_rules() -> None:
    """What does not fit into the registers left goes onto the stack as a whole, behind what is there."""
    places = {
        (version, machine): layout.places[EXCHANGE]
        for version in ((1, 18), (1, 21), (1, 27))
        for machine in ("amd64", "arm64")
        if (layout := go_layouts.layout_of(version, machine))
    }
    for place in places.values():
        assert (place["ctx"], place["server"], place["timeout"], place["question"]) == (1, 3, 5, -8)
    errors = {key: place["error"] for key, place in places.items()}
    assert errors == {
        ((1, 18), "amd64"): -(8 + 264 + 328),
        ((1, 18), "arm64"): 8,
        ((1, 21), "amd64"): 0,
        ((1, 21), "arm64"): 10,
        ((1, 27), "amd64"): 0,
        ((1, 27), "arm64"): -(8 + 264 + 16),
    }
    assert go_layouts.layout_of((1, 17), "amd64") is None
    assert go_layouts.layout_of((1, 27), "riscv64") is None
