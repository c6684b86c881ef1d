"""Go inside of a program of another language: a library that Go built has its lookups seen, beside libc's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from gotarget import BUILD, SOURCES
from gotool import OLDEST, go, go_environment
from play import play

from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
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
