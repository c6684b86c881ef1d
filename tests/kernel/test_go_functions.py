"""Go's functions in real binaries: the same places and RETs as Go's own tools tell, stripped or not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from gotarget import BUILD, SOURCES
from gotool import NEWEST, OLDEST, VERSIONS, go, go_environment

from ebpfdns.observe import elf_symbols, go_program, go_tables, programs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ebpfdns.observe.go_program import GoProgram

E_SHOFF, E_SHNUM = 40, 60  # in the header of an ELF file
#: In each program that can look names up.
ALWAYS = {
    "net.(*Resolver).lookupIPAddr",
    "net.(*Resolver).goLookupIPCNAMEOrder",
    "net.(*Resolver).exchange",
    "net.dnsPacketRoundTrip",
    "net.(*DNSError).Error",
}
#: Name → how it is built: environment, and more words for `go build`.
WAYS: dict[str, tuple[dict[str, str], list[str]]] = {
    "moved": ({"CGO_ENABLED": "0"}, ["-buildmode=pie"]),
    "moved-arm64": ({"CGO_ENABLED": "0", "GOARCH": "arm64"}, ["-buildmode=pie"]),
    "ld": ({"CGO_ENABLED": "1"}, ["-ldflags=-linkmode=external"]),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CACHE", tmp_path / "cache")


def build(version: str, way: str, target: Path) -> Path:
    """The Go workload, built in one of the ways; or a skip."""
    changes, words = WAYS[way]
    if changes["CGO_ENABLED"] == "1" and shutil.which("gcc") is None:
        pytest.skip("cgo needs a C compiler: apt-get install gcc libc6-dev")
    try:
        command = [str(go(version)), "build", "-trimpath", "-o", str(target), *words]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    environment = go_environment(version, BUILD / "go", **changes)
    subprocess.run([*command, "."], cwd=SOURCES, env=environment, check=True)
    return target


def tool(*words: str | Path) -> str:
    """What a tool of Go prints; the oldest Go has them compiled, and they read what newer ones build."""
    environment = go_environment(OLDEST, BUILD / "go")
    command = [str(go(OLDEST)), "tool", *map(str, words)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def addresses_by_nm(path: Path) -> dict[str, int]:
    """Name → address; of a function and its wrapper, the function."""
    found: dict[str, int] = {}
    for line in tool("nm", path).splitlines():
        words = line.split(maxsplit=2)
        if len(words) == 3 and words[1] in "Tt":
            name = words[2].removesuffix(".abi0")
            if name == words[2]:
                found.setdefault(name, int(words[0], 16))
            else:
                found[name] = int(words[0], 16)
    return found


def returns_by_objdump(path: Path) -> dict[str, set[int]]:
    """Name → the addresses of RET instructions in it."""
    found: dict[str, set[int]] = {}
    name = ""
    for line in tool("objdump", "-s", r"^(net\.|internal/singleflight|runtime\.forEachG)", path).splitlines():
        if line.startswith("TEXT "):
            name = re.sub(r"\(SB\).*", "", line.removeprefix("TEXT ")).removesuffix(".abi0")
            continue
        words = [word.strip() for word in line.strip().split("\t") if word.strip()]
        if len(words) >= 4 and words[3].split()[0] == "RET":
            found.setdefault(name, set()).add(int(words[1], 16))
    return found


def found_in(path: Path) -> GoProgram:
    found = go_program.find(str(path), of_any_machine=True)
    assert found is not None
    return found


def check(path: Path, version: str, *, machine: str = "amd64") -> GoProgram:
    """What is found is what Go's own tools say."""
    found = found_in(path)
    assert found.version_text == f"go{version}"
    assert found.settings["GOARCH"] == machine
    assert found.missing == ()
    assert set(found.functions) >= ALWAYS
    known, returns = addresses_by_nm(path), returns_by_objdump(path)
    for name, function in found.functions.items():
        assert function.address == known[name], name
        if name not in go_program.ERRORS:
            moved = function.address - function.entry
            assert {at + moved for at in function.returns} == returns.get(name, set()), name
            assert function.returns
    return found


def functions_without_checksum(found: GoProgram) -> dict[str, tuple[int, tuple[int, ...]]]:
    return {name: (function.entry, function.returns) for name, function in found.functions.items()}


@pytest.mark.parametrize("cgo", [False, True], ids=["pure", "cgo"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_program_has_the_functions_that_gos_tools_tell(
    go_program: Callable[..., Path], version: str, *, cgo: bool
) -> None:
    """Of the oldest and the newest Go; stripped, it has them at the same places."""
    found = check(go_program(version=version, cgo=cgo), version)
    assert found.uses_cgo == cgo
    assert found.settings["CGO_ENABLED"] == str(int(cgo))
    stripped = found_in(go_program(version=version, cgo=cgo, stripped=True))
    assert (found.is_stripped, stripped.is_stripped) == (False, True)
    assert functions_without_checksum(stripped) == functions_without_checksum(found)


# Each of these has Go's standard library compiled once more: so not every version in every way.
@pytest.mark.parametrize(
    ("version", "way"), [(OLDEST, "moved"), (NEWEST, "moved-arm64"), (OLDEST, "ld"), (NEWEST, "ld")]
)
def test_programs_built_in_other_ways_have_them_too(version: str, way: str, tmp_path: Path) -> None:
    """Position independent, for arm64, by the system's linker: as Go's tools tell, section headers or not."""
    path = build(version, way, tmp_path / "full")
    found = check(path, version, machine=WAYS[way][0].get("GOARCH", "amd64"))
    bare = tmp_path / "bare"
    contents = bytearray(path.read_bytes())
    contents[E_SHOFF : E_SHOFF + 8] = bytes(8)
    contents[E_SHNUM : E_SHNUM + 4] = bytes(4)
    bare.write_bytes(contents)
    assert functions_without_checksum(found_in(bare)) == functions_without_checksum(found)
    assert found_in(bare).is_stripped


def test_symbols_make_up_for_a_table_of_an_unknown_form(go_program: Callable[..., Path], tmp_path) -> None:
    """A Go to come may write its table in another way: a program that is not stripped is still understood."""
    path = go_program(version=NEWEST, cgo=True)
    found = found_in(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        elf = elf_symbols.parse(fd)
        assert elf is not None
        table = go_tables.open_tables(elf).region.offset
    finally:
        os.close(fd)
    other = tmp_path / "other"
    contents = bytearray(path.read_bytes())
    contents[table] = 0xF2
    other.write_bytes(contents)
    assert functions_without_checksum(found_in(other)) == functions_without_checksum(found)
