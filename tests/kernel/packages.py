"""Debian packages unpacked below build/, never installed: name service modules and daemons for the tests.

Owns: fetching and unpacking, once. Must not know: what is done with the files.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

#: name sources for systemd-resolved and Avahi
MODULES = ("libnss-resolve", "libnss-mdns")
CACHE = Path(__file__).resolve().parents[2] / "build/packages"
LIBRARIES = tuple(
    f"{top}lib/{machine}-linux-gnu" for machine in ("x86_64", "aarch64") for top in ("usr/", "")
)


def unpacked(*names: str) -> Path:
    """The tree of these packages; a skip where they cannot be had."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("this needs apt-get and dpkg")
    tree = CACHE / "_".join(names)
    if tree.exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=CACHE))
    draft.chmod(0o755)
    fetched = subprocess.run(
        ["apt-get", "download", "-q", *names], cwd=draft, capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        pytest.skip(f"apt-get download {' '.join(names)}: {fetched.stderr.strip()[-200:]}")
    for package in list(draft.glob("*.deb")):
        subprocess.run(["dpkg", "-x", package, draft], check=True)
        package.unlink()
    try:
        draft.rename(tree)
    except OSError:  # somebody else was quicker
        shutil.rmtree(draft)
    return tree


def modules() -> str:
    """Where the modules are that faults of the lab need; empty where they cannot be had."""
    try:
        return library_path(unpacked(*MODULES))
    except pytest.skip.Exception:
        return ""


def library_path(tree: Path) -> str:
    """For LD_LIBRARY_PATH: where the tree has shared libraries."""
    return ":".join(str(tree / folder) for folder in LIBRARIES if (tree / folder).is_dir())
