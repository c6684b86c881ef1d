"""Compiles the workload programs for every libc this machine has a compiler for.

Owns: compilers, flags, and a cache by the hash of sources, flags and compilers: nothing is compiled twice.
Must not know: what the programs do, or which test runs them.

`build()` returns {"lookup-glibc": Path, "lookup-musl": Path, "lookup-musl-static": Path, "wire-glibc": …};
what cannot be built is not in it, and `reasons` says why. As a program: builds all, prints the paths.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_OUTDIR = HERE.parents[1] / "build" / "workloads"

PROGRAMS = ("lookup", "wire", "connector", "waiter", "eventloop")
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread")
LIBRARIES = ("-lresolv",)  # glibc before 2.34 has res_* there; elsewhere it is empty
#: flavour → compiler and its own flags
FLAVOURS = {
    "glibc": ("gcc",),
    "musl": ("musl-gcc",),
    "musl-static": ("musl-gcc", "-static"),
    "musl-stripped": ("musl-gcc", "-static", "-s"),  # no symbol is left: only the wire shows its lookups
}


def build(outdir: Path = DEFAULT_OUTDIR, reasons: dict[str, str] | None = None) -> dict[str, Path]:
    """Compile what is not compiled yet; name → path of each program that can be built here."""
    built: dict[str, Path] = {}
    for program in PROGRAMS:
        for flavour, compiler in FLAVOURS.items():
            name = f"{program}-{flavour}"
            reason = _build_one(program, compiler, target := outdir / _digest(program, compiler) / name)
            if reason is None:
                built[name] = target
            elif reasons is not None:
                reasons[name] = reason
    return built


def _digest(program: str, compiler: tuple[str, ...]) -> str:
    """Changes whenever the program's binary would."""
    sources = b"".join((HERE / name).read_bytes() for name in (f"{program}.c", "workload.h"))
    compiler_path = shutil.which(compiler[0]) or ""
    compiler_time = Path(compiler_path).stat().st_mtime_ns if compiler_path else 0
    words = [*FLAGS, *LIBRARIES, *compiler, compiler_path, str(compiler_time)]
    return hashlib.sha256(sources + "\0".join(words).encode()).hexdigest()[:16]


def _build_one(program: str, compiler: tuple[str, ...], target: Path) -> str | None:
    """Compile one program, unless it is there; why it could not be done, or None."""
    if target.exists():
        return None
    if shutil.which(compiler[0]) is None:
        return f"{compiler[0]} is not installed"
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".unfinished-{os.getpid()}")
    command = [*compiler, *FLAGS, "-o", str(unfinished), str(HERE / f"{program}.c"), *LIBRARIES]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return result.stderr
    unfinished.replace(target)  # two test runs may build at the same time
    return None


def main() -> None:
    """Build everything; 1 when something could not be built."""
    reasons: dict[str, str] = {}
    for path in build(reasons=reasons).values():
        sys.stdout.write(f"{path}\n")
    for name, reason in reasons.items():
        sys.stderr.write(f"{name}: {reason}\n")
    sys.exit(1 if reasons else 0)


if __name__ == "__main__":
    main()
