"""Fixtures of the tests with real containers: what they are made of once, and a target with its agent."""

from __future__ import annotations

import contextlib
import os
import shutil

import debian_root
import pytest
from containers import Setting, agent_in_pod, agent_on_node

TOOLS = {"runc": "runc", "apt-get": "apt", "dpkg-deb": "dpkg", "tar": "tar"}


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """The root tree and the project's wheel, or a skip that says what is missing."""
    if os.geteuid() != 0:
        pytest.skip("containers with capabilities need root")
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"missing: apt-get install {' '.join(missing)}")
    try:
        wheel = debian_root.project(tmp_path_factory.mktemp("wheel"))
        return {"root": debian_root.root(), "project": wheel, "seccomp": debian_root.seccomp_profile()}
    except debian_root.Unavailable as reason:
        pytest.skip(f"the root tree cannot be made here: {reason}")


@pytest.fixture
def setting(made_once, tmp_path):
    """Containers started in it end with the test, the last one first."""
    with contextlib.ExitStack() as stack:
        yield Setting(**made_once, home=tmp_path, volumes=tmp_path / "volumes", stack=stack)


@pytest.fixture
def on_node(setting):
    """A target in a pod of its own, and the DaemonSet's agent."""
    return agent_on_node(setting)


@pytest.fixture
def in_pod(setting):
    """A pod with one process namespace: the pause process, the application, and the sidecar's agent."""
    return agent_in_pod(setting)


@pytest.fixture(params=["on_node", "in_pod"])
def pair(request):
    """Both ways to run the agent, one after the other."""
    return request.getfixturevalue(request.param)
