"""Go toolchains of the tests: the oldest and the newest that are installed (`deploy/setup.sh go`).

Owns: where `go` is, and an environment to build in. Must not know: what is built.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
OLDEST, NEWEST = "1.21.13", "1.27.3"
VERSIONS = (OLDEST, NEWEST)


def go(version: str) -> Path:
    """The `go` command of a version; FileNotFoundError says how to get it."""
    path = ROOT / ".go" / version / "go" / "bin" / "go"
    if not path.exists():
        raise FileNotFoundError(f"Go {version} is not installed: deploy/setup.sh go {version}")
    return path


def go_environment(version: str, cache: Path, **changes: str) -> dict[str, str]:
    """For `go build`: this toolchain and no other, nothing from the network, caches below `cache`."""
    return (
        os.environ
        | {
            "GOROOT": str(go(version).parents[1]),
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "GOCACHE": str(cache / f"build-{version}"),
            "GOPATH": str(cache / "path"),
            "GO111MODULE": "on",
        }
        | changes
    )
