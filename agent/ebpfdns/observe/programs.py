"""Compiled programs: what they are made of, and a cache of them, so that one text is compiled once.

Owns: the cache, and putting map descriptors into instructions.
Must not know: BCC beyond asking for a compilation, what the programs do, or how they are attached.

The cache holds instructions with map references by name, so it does not depend on the state of a machine. It
is used only when file and folder belong to us and nobody else may write to them: it is code for the kernel.
BCC brings a whole compiler into memory. It runs in a process of its own (`compiler`) and takes that with it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe import kept_files, sources

CACHE = Path("/var/cache/ebpfdns")
FORMAT = 3
INSTRUCTION_BYTES = 8
COMPILE_DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class MapPlan:
    """A map as the programs declare it."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """Instructions of each function, and where in them which map is meant."""

    maps: tuple[MapPlan, ...]
    functions: dict[str, bytes]
    references: dict[str, tuple[tuple[int, str], ...]]  # function → (instruction number, map name)
    licence: bytes


def compiled(variant: sources.Variant) -> Compiled:
    """The programs of a variant: from the cache, or compiled now and put there."""
    text = sources.assemble(variant)
    path = CACHE / f"{_digest(text)}.programs"
    found = _read(path)
    if found is None:
        found = compile_apart(text)
        kept_files.write(path, pickle.dumps(found))
    return found


def compile_apart(text: str) -> Compiled:
    """Compile in a process of its own. HostCannotTraceError, in the compiler's words, when that fails."""
    # As this process finds its modules, whatever way it was started; -S and -E would hide Debian's bcc.
    command = [sys.executable, "-c", "from ebpfdns.observe.compiler import main; main()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        result = subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            check=False,
            env=environment,
            timeout=COMPILE_DEADLINE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise HostCannotTraceError(
            f"the compiler did not end within {COMPILE_DEADLINE_S} s: this machine is too busy, or too small",
            remedy="sudo ebpfdns doctor",
        ) from error
    words = result.stderr.decode(errors="replace").strip()[-2000:]
    try:
        found = pickle.loads(result.stdout)  # noqa: S301 - our own child's
    except Exception as error:
        raise HostCannotTraceError(
            f"the compiler ended with code {result.returncode}\n{words}".rstrip(),
            remedy="sudo ebpfdns doctor",
        ) from error
    if isinstance(found, HostCannotTraceError):
        raise HostCannotTraceError(f"{found}\n{words}".rstrip(), remedy=found.remedy)
    assert isinstance(found, Compiled)  # noqa: S101 - for the type checker: nothing else is sent
    return found


def relocated(plan: Compiled, function: str, map_fds: dict[str, int]) -> bytes:
    """A function's instructions with the descriptors of maps that exist now."""
    code = bytearray(plan.functions[function])
    for number, name in plan.references[function]:
        struct.pack_into("=i", code, number * INSTRUCTION_BYTES + 4, map_fds[name])
    return bytes(code)


def _digest(text: str) -> str:
    """Changes with the text, this file's format, and the machine's kind."""
    kind = f"{FORMAT} {platform.machine()}"
    return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:32]


def _read(path: Path) -> Compiled | None:
    """A cached result that only we can have written."""
    raw = kept_files.read(path)
    try:
        found = None if raw is None else pickle.loads(raw)  # noqa: S301 - our own file
    except Exception:  # noqa: BLE001 - cut off, of another version: compile instead
        return None
    return found if isinstance(found, Compiled) else None
