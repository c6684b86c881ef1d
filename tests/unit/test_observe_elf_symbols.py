"""Function offsets in ELF files: the same as another ELF reader finds, and nothing from broken files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ebpfdns.observe import code_names, elf_symbols, mappings
from ebpfdns.observe.elf_symbols import function_offsets
from ebpfdns.observe.libraries import LOOKUP_FUNCTIONS

WANTED = frozenset(LOOKUP_FUNCTIONS)
needs_compiler = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

VERSIONED = """
int old_query(void) { return 1; }
int new_query(void) { return 2; }
__asm__(".symver old_query,res_query@V1");
__asm__(".symver new_query,res_query@@V2");
int __res_search(void) { return 3; }
int __res_send(void) { return 4; }
int res_send(void) { return 5; }
int __res_nsend(void) { return 6; }
extern __typeof(__res_nsend) res_nsend __attribute__((alias("__res_nsend")));
static int chosen(void) { return 7; }
static void *choose(void) { return chosen; }
int getaddrinfo(void) __attribute__((ifunc("choose")));
int gethostbyname = 8;
"""
VERSIONS = "V1 { global: res_*; __res_*; getaddrinfo; gethostbyname; local: *; }; V2 { } V1;"


def libc_path() -> str:
    """The C library of this very process."""
    names = ("libc.so.6", "libc.so", "ld-musl")
    return next(m.path for m in mappings.read_maps(os.getpid()) if Path(m.path).name.startswith(names))


def offsets_by_elftools(path: str, table: str) -> dict[str, set[int]]:
    """Name → offsets of every defined function in a symbol table, by an independent reader."""
    found: dict[str, set[int]] = {}
    with Path(path).open("rb") as file:
        elf = ELFFile(file)
        section = elf.get_section_by_name(table)
        names = WANTED | {f"__{name}" for name in WANTED} | {"old_query", "new_query"}
        symbols = (
            [symbol for name in names for symbol in section.get_symbol_by_name(name) or ()] if section else ()
        )
        for symbol in symbols:
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF":
                found.setdefault(symbol.name, set()).update(elf.address_offsets(symbol["st_value"]))
    return found


@pytest.fixture(scope="module")
def versioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with old and new versions, aliases, an indirect function, and data named like a function."""
    folder = tmp_path_factory.mktemp("elf")
    (folder / "v.c").write_text(VERSIONED, encoding="utf-8")
    (folder / "v.map").write_text(VERSIONS, encoding="utf-8")
    command = ["gcc", "-shared", "-fPIC", "-w", "-O0", "-o", "v.so", "v.c", "-Wl,--version-script=v.map"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "v.so"


def test_offsets_are_those_another_reader_finds() -> None:
    """Each lookup function of this machine's libc is found where pyelftools finds it."""
    found = function_offsets(libc_path(), WANTED)
    expected = offsets_by_elftools(libc_path(), ".dynsym")
    assert "getaddrinfo" in found
    assert {name: offset in expected[name] for name, offset in found.items()} == dict.fromkeys(found, True)
    distinct = {offset for name in WANTED & expected.keys() for offset in expected[name]}
    assert set(found.values()) == distinct, "no function is left out"


@needs_compiler
def test_the_default_version_counts(versioned: Path) -> None:
    """Of a name's versions, the one that new programs are linked to is taken."""
    expected = offsets_by_elftools(str(versioned), ".symtab")
    assert {function_offsets(str(versioned), frozenset({"res_query"}))["res_query"]} == expected["new_query"]


@needs_compiler
def test_aliases_are_one_and_namesakes_are_two(versioned: Path) -> None:
    """Two names of one function give it once, without underscores; two functions keep two names."""
    wanted = frozenset(
        name for plain in ("res_nsend", "res_send", "res_search") for name in (plain, f"__{plain}")
    )
    found = function_offsets(str(versioned), wanted)
    expected = offsets_by_elftools(str(versioned), ".dynsym")
    assert found.keys() == {"res_nsend", "res_send", "__res_send", "res_search"}
    assert {found["res_search"]} == expected["__res_search"]
    assert {found["res_send"]} == expected["res_send"]
    assert {found["__res_send"]} == expected["__res_send"]


@needs_compiler
def test_only_functions_are_functions(versioned: Path) -> None:
    """A variable, and an indirect function (whose address is its chooser's), are not taken for a function."""
    assert function_offsets(str(versioned), frozenset({"getaddrinfo", "gethostbyname"})) == {}


@needs_compiler
def test_a_static_program_is_read_by_its_symbol_table(tmp_path: Path) -> None:
    """A program that exports nothing is looked up in its full symbol table; stripped, it has no functions."""
    source = "int getaddrinfo(void) { return 1; } void _start(void) { getaddrinfo(); for (;;); }"
    (tmp_path / "s.c").write_text(source, encoding="utf-8")
    build = ["gcc", "-w", "-static", "-nostdlib", "-o", "s", "s.c"]
    subprocess.run(build, cwd=tmp_path, check=True)
    path = str(tmp_path / "s")
    found = function_offsets(path, WANTED)
    assert {found["getaddrinfo"]} == offsets_by_elftools(path, ".symtab")["getaddrinfo"]
    subprocess.run([*build, "-s"], cwd=tmp_path, check=True)
    assert function_offsets(path, WANTED) == {}


@pytest.mark.parametrize(
    "contents", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(58), b"\x7fELF\x02\x01"]
)
def test_what_is_no_program_of_this_machine_has_no_functions(tmp_path: Path, contents: bytes) -> None:
    """A script, a 32-bit program and half a header are answered with nothing."""
    (tmp_path / "file").write_bytes(contents)
    assert function_offsets(str(tmp_path / "file"), WANTED) == {}


def test_another_machines_program_has_no_functions(tmp_path: Path) -> None:
    """Offsets in a program of another processor would be probed in vain: there are none."""
    header = bytearray(Path(libc_path()).read_bytes())
    header[18:20] = (243).to_bytes(2, "little")  # RISC-V
    (tmp_path / "file").write_bytes(header)
    assert function_offsets(str(tmp_path / "file"), WANTED) == {}


@needs_compiler
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_broken_file_gives_offsets_inside_it_or_none(versioned: Path, data: st.DataObject) -> None:
    """Whatever bytes are flipped or cut off: no failure, and offsets of wanted names only, none negative."""
    contents = bytearray(versioned.read_bytes())
    tables = len(contents) - 64 * 32  # the section headers are the last thing in the file
    places = st.one_of(st.integers(0, 63), st.integers(64, 800), st.integers(tables, len(contents) - 1))
    for at in data.draw(st.lists(places, max_size=6)):
        contents[at] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(contents)), st.integers(0, len(contents))))
    fd = os.memfd_create("elf")
    try:
        os.write(fd, contents[:length])
        found = function_offsets(f"/proc/self/fd/{fd}", WANTED)
    finally:
        os.close(fd)
    assert all(name.lstrip("_") in WANTED and offset >= 0 for name, offset in found.items())


@given(st.binary(max_size=300))
@example(b"\x7fELF\x02\x01" + bytes(58))
def test_any_bytes_are_read_without_failure(contents: bytes) -> None:
    """Random bytes are no ELF file, or one without functions."""
    fd = os.memfd_create("elf")
    try:
        os.write(fd, contents)
        elf = elf_symbols.parse(fd)
        assert elf is None or elf_symbols.functions_in(elf, WANTED) == {}
    finally:
        os.close(fd)


def test_this_interpreter_tells_how_it_was_linked() -> None:
    """A program with a dynamic loader is not static."""
    fd = os.open(Path(sys.executable).resolve(), os.O_RDONLY)
    try:
        elf = elf_symbols.parse(fd)
        assert elf is not None
        assert not elf.is_static
        assert elf.section(".no-such-section") is None
    finally:
        os.close(fd)


def test_only_a_function_that_covers_an_address_names_it() -> None:
    """Exported functions are found from each of their bytes; code between them has no name."""
    with Path(libc_path()).open("rb") as file:
        elf = elf_symbols.parse(file.fileno())
        assert elf is not None
        table = ELFFile(file).get_section_by_name(".dynsym")
        symbols = [symbol for symbol in table.iter_symbols() if symbol["st_info"]["type"] == "STT_FUNC"]
        covered = [range(s["st_value"], s["st_value"] + s["st_size"]) for s in symbols if s["st_size"]]
        (chosen,) = (symbol for symbol in symbols if symbol.name == "getaddrinfo")
        start, end = chosen["st_value"], chosen["st_value"] + chosen["st_size"]
        gap = next(at for at in range(start, start + (1 << 20)) if not any(at in span for span in covered))
        found = code_names.functions_at(elf, [start, end - 1, end, gap, 0])
    assert (found[start], found[end - 1]) == (code_names.Function("getaddrinfo", start),) * 2
    assert found.get(end, code_names.Function("", 0)).name != "getaddrinfo"
    assert gap not in found
    assert 0 not in found
