"""The Dockerfile: what it copies exists, what it installs is locked, and nothing else gets into the build."""

from __future__ import annotations

import json
import re
import tomllib

import pods
import pytest

CONTAINER = pods.ROOT / "deploy/container"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (INSTRUCTION, rest) pairs, with continuation lines joined and comments dropped."""
    text = re.sub(r"^\s*#.*\n", "", (CONTAINER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]


def copied() -> list[str]:
    """The paths that COPY takes from the tree (not from another stage)."""
    rests = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [source for rest in rests if not rest[0].startswith("--from") for source in rest[:-1]]


@pytest.mark.parametrize("source", copied())
def test_every_copied_path_exists(source):
    """Each path that COPY names is in the tree."""
    assert (pods.ROOT / source).exists()


@pytest.mark.parametrize("source", copied())
def test_every_copied_path_is_in_the_build_context(source):
    """The ignore file, which keeps everything out, makes an exception for each copied path."""
    assert f"!{source}" in (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()


def test_both_stages_have_the_same_base():
    """The environment is made with the Python it runs with: both stages start from the same image."""
    assert [rest.split(" AS ")[0] for name, rest in instructions() if name == "FROM"] == ["${BASE}"] * 2
    assert dict(instructions())["ARG"]  # the base is an argument, with a default
    assert ("ARG", "BASE=debian:12-slim") in instructions()


def test_entry_point_is_the_command_without_a_shell():
    """The entry point is the exec form of the installed `ebpfdns`, so that signals reach the agent."""
    entry = json.loads(dict(instructions())["ENTRYPOINT"])
    assert entry == ["/opt/ebpfdns/bin/ebpfdns"]


def test_no_recommended_packages_are_installed():
    """Every apt-get install leaves recommendations out and removes the package lists in the same layer."""
    installs = [rest for name, rest in instructions() if name == "RUN" and "apt-get install" in rest]
    assert installs
    for rest in installs:
        assert "--no-install-recommends" in rest
        assert "rm -rf /var/lib/apt/lists/*" in rest


def test_bcc_comes_from_the_distribution():
    """The lock has no package `bcc` (another thing on PyPI); the last stage installs python3-bpfcc."""
    lock = (CONTAINER / "requirements.txt").read_text()
    assert not re.search(r"^bcc\b", lock, re.MULTILINE)
    assert "python3-bpfcc" in [rest for name, rest in instructions() if name == "RUN"][-1]


def test_every_dependency_is_locked_with_hashes():
    """Each dependency of pyproject.toml has a pinned version with at least one hash in the image's lock."""
    project = tomllib.loads((pods.ROOT / "pyproject.toml").read_text())["project"]
    lock = (CONTAINER / "requirements.txt").read_text()
    for dependency in project["dependencies"]:
        name = re.match(r"[A-Za-z0-9._-]+", dependency)[0]
        assert re.search(rf"^{name}==\S+ \\\n    --hash=sha256:", lock, re.MULTILINE), name


def test_the_label_is_this_version():
    """The image's version label defaults to the package's version."""
    version = re.search(r'__version__ = "(.+)"', (pods.ROOT / "agent/ebpfdns/__init__.py").read_text())[1]
    assert ("ARG", f"VERSION={version}") in instructions()
