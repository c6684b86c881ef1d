"""`ebpfdns run -- go test ./...`: test programs that did not exist, traced from their first lookup on."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import gotool
import pytest
from agent import environment
from play import again, whole
from runs import run

from ebpfdns.lab import go_toolchain
from ebpfdns.lab.faults import FAULTS
from ebpfdns.observe import target

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="BPF needs root")]

PACKAGES, LOOKUPS = 5, 7
#: It looks up while its variables are being set, before main and before any test.
SOURCE = """package p%d

import (
	"context"
	"fmt"
	"net"
	"testing"
)

var found = lookUp()

func lookUp() (count int) {
	for i := 0; i < %d; i++ {
		name := fmt.Sprintf("p%d-%%d.lab.test", i)
		if _, err := net.DefaultResolver.LookupHost(context.Background(), name); err == nil {
			count++
		}
	}
	return count
}

func TestAll(t *testing.T) {
	if found != %d {
		t.Fatal(found)
	}
}
"""


@pytest.fixture(params=gotool.VERSIONS)
def surroundings(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A module with five packages of tests, and this Go to run them."""
    try:
        go = gotool.go(request.param)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    (tmp_path / "go.mod").write_text("module example.org/five\n\ngo 1.18\n")
    for number in range(PACKAGES):
        (tmp_path / f"p{number}").mkdir()
        text = SOURCE % (number, LOOKUPS, number, LOOKUPS)
        (tmp_path / f"p{number}" / "all_test.go").write_text(text)
    return environment() | {
        name: value for name, value in go_toolchain.environment(go).items() if name != "PYTHONPATH"
    }


@again
def test_every_lookup_of_every_test_program_is_told(
    sandbox: Sandbox, surroundings: dict[str, str], tmp_path: Path
) -> None:
    """5 fresh test programs with 7 lookups each, made before main: 35 lookups of goroutines, none late."""
    with FAULTS["healthy"].setup(sandbox, log=False):
        command = ["go", "test", "-count=1", "./..."]
        ran = run(sandbox, "--all", "--fail-on-stuck", command=command, cwd=tmp_path, env=surroundings)
    assert ran.code == 0, ran.stdout.decode() + ran.stderr
    whole(ran.lines)
    told = [line for line in ran.of("lookup") if line["lookup"]["api"] == "go"]
    names = Counter(line["lookup"]["name"] for line in told)
    wanted = [f"p{package}-{number}.lab.test" for package in range(PACKAGES) for number in range(LOOKUPS)]
    assert names == dict.fromkeys(wanted, 1)
    programs = {line["process"]["executable"]["name"] for line in told}
    assert programs == {f"p{number}.test" for number in range(PACKAGES)}
    assert all(line["lookup"]["goroutine"]["id"] > 0 for line in told)
    late = [line for line in ran.of("target") if target.LATE in line["target"]["coverage"]["missing"]]
    assert programs & {line["process"]["executable"]["name"] for line in late} == set()
    assert {line["lookup"]["status"] for line in told} == {"ok"}
