"""The Go workload (`tests/workloads/go`), built by each toolchain, with and without cgo, stripped or not.

Owns: the flavours, a cache by the hash of sources and toolchain. Must not know: what the program does.

A toolchain builds its standard library first: some ten seconds, once for all that is built in a tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gotool import NEWEST, OLDEST, ROOT, go, go_environment

SOURCES = Path(__file__).parents[1] / "workloads" / "go"
BUILD = ROOT / "build" / "workloads"


@dataclass(frozen=True)
class Flavour:
    """How it is built: `web` has the ways that need net/http."""

    version: str = NEWEST
    cgo: bool = False
    stripped: bool = False
    web: bool = False

    @property
    def name(self) -> str:
        """go1.27.3-cgo-stripped and the like."""
        words = [f"go{self.version}", "cgo" if self.cgo else "pure"]
        words += ["stripped"] * self.stripped + ["web"] * self.web
        return "-".join(words)


#: oldest and newest Go, CGO off and on, stripped or not
FLAVOURS = tuple(
    Flavour(version, cgo, stripped)
    for version in (OLDEST, NEWEST)
    for cgo in (False, True)
    for stripped in (False, True)
)


class GoMissingError(Exception):
    """It cannot be built here; the message says what to install."""


def gotarget(flavour: Flavour = Flavour(), build: Path = BUILD) -> Path:
    """The program of this flavour, built unless it is there already."""
    try:
        compiler = go(flavour.version)
    except FileNotFoundError as error:
        raise GoMissingError(str(error)) from error
    if flavour.cgo and shutil.which("gcc") is None:
        raise GoMissingError("cgo needs a C compiler: apt-get install gcc libc6-dev")
    target = build / _digest() / flavour.name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
    command = [compiler, "build", "-trimpath", "-o", unfinished]
    command += ["-ldflags=-s -w"] * flavour.stripped + ["-tags=web"] * flavour.web
    environment = go_environment(flavour.version, build / "go", CGO_ENABLED=str(int(flavour.cgo)))
    done = subprocess.run(
        [*command, "."], cwd=SOURCES, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise GoMissingError(f"{flavour.name} cannot be built:\n{done.stderr}")
    unfinished.replace(target)
    return target


def _digest() -> str:
    """Changes whenever the sources do."""
    texts = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    return f"go-{hashlib.sha256(texts).hexdigest()[:16]}"
