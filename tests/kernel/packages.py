"""Debian packages unpacked below build/, never installed: name service modules and daemons for the tests.

Owns: fetching and unpacking, once. Must not know: what is done with the files.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ebpfdns.lab.fault import Fault

#: name sources for systemd-resolved and Avahi
MODULES = ("libnss-resolve", "libnss-mdns")
#: resolvers, each with what a bare system lacks of it
DAEMONS = {
    "systemd-resolved": ("systemd-resolved", "libsystemd-shared"),
    "dnsmasq": ("dnsmasq-base", "libnetfilter-conntrack3", "libnfnetlink0", "libnftables1", "libjansson4"),
    "unbound": ("unbound", "libevent-2.1-7", "libprotobuf-c1", "libnghttp2-14"),
}
#: where a later systemd-resolved is that runs with this release's libc
NEWER = "bookworm-backports"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
CACHE = Path(__file__).resolve().parents[2] / "build/packages"
LIBRARIES = tuple(
    f"{top}lib/{machine}-linux-gnu{below}"
    for machine in ("x86_64", "aarch64")
    for top in ("usr/", "")
    for below in ("", "/systemd")
)


def unpacked(*names: str, suite: str = "") -> Path:
    """The tree of these packages, of this release or of another `suite`; a skip where they cannot be had."""
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("this needs apt-get and dpkg")
    tree = CACHE / "_".join([*names, *([suite] if suite else [])])
    if tree.exists():
        return tree
    CACHE.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=CACHE))
    draft.chmod(0o755)
    options = _of_suite(suite, draft) if suite else []
    fetched = subprocess.run(
        ["apt-get", *options, "download", "-q", *names],
        cwd=draft,
        capture_output=True,
        text=True,
        check=False,
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


def _of_suite(suite: str, folder: Path) -> list[str]:
    """Options with which apt-get knows that suite of Debian only; this system's own lists stay."""
    lists, cache = folder / ".lists", folder / ".cache"
    for place in (lists / "partial", cache / "archives/partial"):
        place.mkdir(parents=True)
    source = folder / ".list"
    source.write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian {suite} main\n")
    settings = {"SourceList": source, "SourceParts": "/dev/null"}
    words = [f"Dir::Etc::{name}={value}" for name, value in settings.items()]
    words += [f"Dir::State::Lists={lists}", f"Dir::Cache={cache}"]
    options = [word for setting in words for word in ("-o", setting)]
    subprocess.run(["apt-get", *options, "update", "-q"], capture_output=True, check=False)
    return options


def newer_resolved() -> dict[str, str]:
    """PATH and LD_LIBRARY_PATH with a systemd-resolved of a later release first."""
    tree = unpacked(*DAEMONS["systemd-resolved"], suite=NEWER)
    first = {"PATH": str(tree / "lib/systemd"), "LD_LIBRARY_PATH": library_path(tree)}
    return {name: f"{value}:{daemons()[name]}" for name, value in first.items()}


def modules() -> str:
    """Where the modules are that faults of the lab need; empty where they cannot be had."""
    try:
        return library_path(unpacked(*MODULES))
    except pytest.skip.Exception:
        return ""


@functools.cache
def daemons() -> dict[str, str]:
    """PATH and LD_LIBRARY_PATH with the real resolvers, and the modules; without those that cannot be had."""
    paths, libraries = [], [modules()]
    for names in DAEMONS.values():
        try:
            tree = unpacked(*names)
        except pytest.skip.Exception:
            continue
        paths += [str(tree / folder) for folder in ("usr/sbin", "lib/systemd", "usr/lib/systemd")]
        libraries.append(library_path(tree))
    return {
        "PATH": ":".join([os.environ.get("PATH", ""), *paths]),
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
    }


def has_daemon(fault: Fault) -> bool:
    """Whether the resolver that this fault runs can be had."""
    path = daemons()["PATH"]
    wanted = [name for name in DAEMONS if fault.name.startswith(name.removeprefix("systemd-"))]
    return all(shutil.which(name, path=path) for name in wanted or ["dnsmasq"])


def library_path(tree: Path) -> str:
    """For LD_LIBRARY_PATH: where the tree has shared libraries."""
    return ":".join(str(tree / folder) for folder in LIBRARIES if (tree / folder).is_dir())
