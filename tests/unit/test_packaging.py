"""What is shipped, and what is said about it: wheel, locks, versions, licences, and the documents."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ebpfdns
from ebpfdns import cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNTIME_LOCK = ROOT / "deploy/container/requirements.txt"
BUILD_LOCK = ROOT / "requirements-build.txt"
TEST_LOCK = ROOT / "requirements-test.txt"
README = ROOT / "README.md"
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for name in ("docs", "deploy", "tests") for path in ROOT.glob(f"{name}/**/*.md")),
    ]
)


def group(name: str) -> list[str]:
    """The requirements of a dependency group, without the groups it includes."""
    return [wanted for wanted in PROJECT["dependency-groups"][name] if isinstance(wanted, str)]


LOCKS = [
    pytest.param(RUNTIME_LOCK, PROJECT["project"]["dependencies"], id="runtime"),
    pytest.param(BUILD_LOCK, group("build") + PROJECT["build-system"]["requires"], id="build"),
    pytest.param(TEST_LOCK, group("build") + group("test"), id="test"),
]


def pins(lock: Path) -> dict[str, str]:
    found = re.findall(r"^(\S+)==(\S+) \\$", lock.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def code(document: Path) -> list[str]:
    """What a document shows as typed: its inline code, and the lines of its fenced blocks."""
    text = document.read_text()
    fences = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", prose) + [line for fence in fences for line in fence.splitlines()]


def shown(document: Path, tool: str) -> set[str]:
    """The sub-commands of a tool that a document shows."""
    return {
        found[1] for line in code(document) if (found := re.match(rf"(?:\$ |sudo )*{tool} ([a-z-]+)", line))
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this tree, built with the locked tools and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    result = subprocess.run([*pip, "--wheel-dir", folder, ROOT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_has_every_module_and_bpf_source(wheel):
    """The wheel holds each file of the package, and all of bpf/ with its headers, and nothing else."""
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT / "agent")) for path in (ROOT / "agent/ebpfdns").rglob("*.*")}
    bpf = {f"ebpfdns/{path.relative_to(ROOT)}" for path in (ROOT / "bpf").rglob("*") if path.is_file()}
    assert shipped == {name for name in package if not name.endswith(".pyc")} | bpf
    assert any(name.startswith("ebpfdns/bpf/headers/") for name in shipped)


def test_wheel_installs_the_command_and_both_licences(wheel):
    """The wheel makes an `ebpfdns` command and carries the texts of the licences it names."""
    [info] = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "ebpfdns = ebpfdns.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert wheel.read(f"{info}/licenses/bpf/LICENSE") == (ROOT / "bpf/LICENSE").read_bytes()


def test_licences_are_the_whole_texts():
    """The tree's licence is Apache-2.0 and that of bpf/ GPL-2.0, each from title to end."""
    apache, gpl = (ROOT / "LICENSE").read_text(), (ROOT / "bpf/LICENSE").read_text()
    assert "Apache License" in apache
    assert "Version 2.0, January 2004" in apache
    assert "limitations under the License." in apache
    assert "GNU GENERAL PUBLIC LICENSE" in gpl
    assert "Version 2, June 1991" in gpl
    assert "END OF TERMS AND CONDITIONS" in gpl


@pytest.mark.parametrize("path", sorted((ROOT / "bpf").rglob("*.[ch]")), ids=lambda path: path.name)
def test_bpf_sources_name_their_licence(path):
    """Each file in bpf/ begins with its SPDX line."""
    assert "SPDX-License-Identifier: GPL-2.0" in path.read_text().split("\n", 1)[0]


@pytest.mark.parametrize(("lock", "wanted"), LOCKS)
def test_locks_hold_what_is_wanted(lock, wanted):
    """Each requirement in pyproject.toml is pinned in its lock, to a version that it allows."""
    pinned = pins(lock)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(("lock", "wanted"), LOCKS)
def test_locks_are_pinned_with_hashes(lock, wanted):
    """Each entry of a lock is one exact version with at least one hash, and bcc is never among them."""
    entries = re.findall(r"^[a-z].*(?:\n    .*)*", lock.read_text(), re.MULTILINE)
    assert len(entries) >= len(set(wanted))
    for entry in entries:
        assert re.match(r"\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry
    assert "bcc" not in pins(lock)


def test_locks_agree():
    """A package that is in two locks has one version."""
    locked = [pins(lock) for lock in (RUNTIME_LOCK, BUILD_LOCK, TEST_LOCK)]
    for name in set.union(*(set(lock) for lock in locked)):
        assert len({lock[name] for lock in locked if name in lock}) == 1, name


def test_versions_agree():
    """The package, the changelog's newest release, and every image tag in the manifests have one version."""
    newest = re.search(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert newest == ebpfdns.__version__
    tags = {
        tag
        for path in (ROOT / "deploy").rglob("*")
        if path.is_file()
        for tag in re.findall(r"\bebpfdns:(\d+\.\d+\.\d+)", path.read_text())
    }
    assert tags <= {ebpfdns.__version__}


def test_make_targets_in_documents_exist():
    """Each `make TARGET` that a document shows is a target, and every target is explained by `make help`."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split())
    assert targets == set(re.findall(r"^([a-z-]+):.* ## \S", makefile, re.MULTILINE))
    promised = set.union(*(shown(document, "make") for document in DOCUMENTS))
    assert {"demo", "test", "install", "bench"} <= promised <= targets


def test_commands_in_documents_exist():
    """Each `ebpfdns COMMAND` that a document shows is a command, and the README shows them all."""
    assert set.union(*(shown(document, "ebpfdns") for document in DOCUMENTS)) <= set(cli.COMMANDS)
    assert shown(README, "ebpfdns") == set(cli.COMMANDS)


def test_readme_names_every_option_of_attach():
    """The README's table of options is the options of `attach`: none missing, none invented."""
    attach = importlib.import_module("ebpfdns.commands.attach").command
    table = re.findall(r"^\| `(--[a-z-]+)", README.read_text(), re.MULTILINE)
    options = [option for option in attach.params if not getattr(option, "hidden", False)]
    assert sorted(table) == sorted(
        name for option in options for name in option.opts if name.startswith("--")
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(document):
    """Each relative link in a document leads to a file or folder of the tree."""
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        assert "://" in target or (document.parent / target).exists(), target


def test_the_readme_shows_a_real_event():
    """The JSON line that the README shows is, byte for byte, a line of a recorded session."""
    [shown_line] = re.findall(r"```json\n(.*)\n```", README.read_text())
    assert shown_line in (ROOT / "tests/replay/silent.jsonl").read_text().splitlines()
    assert json.loads(shown_line)["event"] == "lookup_stuck"
