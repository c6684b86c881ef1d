"""Go where nobody expects it: in a library of another program, and newer than what was checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from gotarget import BUILD, SOURCES
from gotool import NEWEST, OLDEST, go, go_environment
from play import play

from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe.go_build_info import MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.example.test"
LOADER = SOURCES.parent / "go_loader.py"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C library made of Go."""
    if shutil.which("gcc") is None:
        pytest.skip("cgo needs a C compiler: apt-get install gcc libc6-dev")
    target = tmp_path_factory.mktemp("library") / "liblookup.so"
    try:
        command = [str(go(OLDEST)), "build", "-trimpath", "-buildmode=c-shared", "-tags=netgo"]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    environment = go_environment(OLDEST, BUILD / "go", CGO_ENABLED="1")
    folder = SOURCES.parent / "go_library"
    subprocess.run([*command, "-o", str(target), "."], cwd=folder, env=environment, check=True)
    return target


def test_a_lookup_of_a_library_that_go_built_is_seen(library: Path) -> None:
    """Which goroutine waits, for which name and server, in a Python program; its libc is seen as well."""
    seen = play(FAULTS["silent"], {"mixed": [sys.executable, LOADER, library, "--name", NAME]})
    for line in (seen.of("lookup_stuck", "mixed")[0], seen.only("lookup", "mixed")):
        lookup = line["lookup"]
        assert (lookup["name"], lookup["api"], lookup["resolver"]) == (NAME, "go", "go")
        assert lookup["goroutine"]["id"] > 0
        assert {query["server"]["address"] for query in lookup["queries"]} == {"192.0.2.53"}
    assert seen.stats["lookups"]["started"] == 1
    coverage = seen.of("target", "mixed")[0]["target"]["coverage"]
    assert coverage["go"] == f"go{OLDEST}"
    assert coverage["libc"].startswith("glibc")
    assert coverage["missing"] == []


def test_a_go_to_come_is_seen_and_told_as_unverified(go_program: Callable[..., Path], tmp_path: Path) -> None:
    """It is taken to be as the newest known one, its goroutine ids as its debug information says."""
    contents = go_program(version=NEWEST).read_bytes()
    at = contents.index(f"go{NEWEST}".encode(), contents.index(MAGIC + b"\x08\x02"))
    program = tmp_path / "newer"
    program.write_bytes(contents[:at] + b"go1.99.1" + contents[at + len("go1.99.1") :])
    program.chmod(0o755)
    seen = play(FAULTS["silent"], {"newer": [program, "--name", NAME, "--way", "ip"]})
    assert seen.only("lookup", "newer")["lookup"]["goroutine"] == {"id": 1}
    coverage = seen.of("target", "newer")[0]["target"]["coverage"]
    assert coverage["go"] == "go1.99.1"
    assert coverage["missing"] == [
        "lookups of Go: go1.99.1 is newer than Go 1.27; arguments of its resolver are unverified"
    ]
