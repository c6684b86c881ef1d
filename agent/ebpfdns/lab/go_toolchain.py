"""Where Go is on this machine, and the surroundings in which it builds without network.

Owns: the places to look at, and Go's variables. Must not know: what is built.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab.namespace import PACKAGE_PARENT, plain_environment

#: Of a checkout: what `deploy/setup.sh go VERSION` installs. sudo takes the usual places from PATH.
CHECKOUT_PLACES = (PACKAGE_PARENT / ".go", PACKAGE_PARENT.parent / ".go")
USUAL_PLACES = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go", "/snap/bin/go")
CACHE = Path("/var/cache/ebpfdns/go-build")
REMEDY = "apt-get install golang-go   (in a checkout: deploy/setup.sh go 1.27.3)"


def find() -> Path:
    """The `go` command."""
    on_path = shutil.which("go")
    in_checkout = [path for place in CHECKOUT_PLACES for path in place.glob("*/go/bin/go")]
    found = [Path(on_path)] if on_path else [Path(place) for place in USUAL_PLACES if Path(place).exists()]
    found += sorted(in_checkout, key=_version)[-1:]
    if not found:
        raise EbpfdnsError("this demo needs Go, and there is none on PATH", remedy=REMEDY)
    return found[0]


def environment(go: Path) -> dict[str, str]:
    """This toolchain and no other, nothing from the network, no C compiler; one cache for all demos."""
    own = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GO111MODULE": "on"}
    own |= {"GOCACHE": str(CACHE), "GOPATH": str(CACHE / "path"), "CGO_ENABLED": "0", "GOWORK": "off"}
    own |= {"GONOSUMDB": "*", "GOTELEMETRY": "off", "GOENV": "off"}
    path = os.pathsep.join([str(go.parent), os.environ.get("PATH", os.defpath)])
    kept = {name: value for name, value in plain_environment().items() if name != "GOROOT"}
    return kept | own | {"PATH": path}


def _version(path: Path) -> list[int]:
    """1.27.3 of .go/1.27.3/go/bin/go."""
    return [int(part) for part in path.parents[2].name.split(".") if part.isdigit()]
