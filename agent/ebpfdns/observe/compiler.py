"""From program text to instructions, by BCC; and a cache of the result, so that BCC is needed once per text.

Owns: the project's only import of bcc (Debian's python3-bpfcc; the package `bcc` on PyPI is something else).
Must not know: what the programs do, or how they are attached.

The cache holds instructions with map references by name, so it does not depend on a machine's state. It is
code for the kernel: used only when the file and its folder belong to us and nobody else may write to them.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import platform
import stat
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe import sources

CACHE = Path("/var/cache/ebpfdns")
FORMAT = 2
LOAD_WIDE, MAP_REFERENCE = 0x18, 1  # BPF_LD | BPF_IMM | BPF_DW, and BPF_PSEUDO_MAP_FD in the source register
INSTRUCTION_BYTES = 8
#: libbcc's functions bpf_table_FACT(module, number), in the order of `MapPlan`
FACTS = ("fd_id", "type_id", "key_size_id", "leaf_size_id", "max_entries_id", "flags_id")
INSTALL = "apt-get install python3-bpfcc   (in a virtual environment: made with --system-site-packages)"


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
        found = compile_text(text)
        _write(path, found)
    return found


def compile_text(text: str) -> Compiled:
    """Compile with BCC. HostCannotTraceError when it is missing or refuses."""
    bcc = _bcc()
    # BCC reads kernel headers from here: our stand-in, unless someone insists on real ones.
    os.environ.setdefault("BCC_KERNEL_SOURCE", str(sources.directory() / "headers"))
    try:
        with _stderr_kept() as messages:
            module = bcc.BPF(text=text.encode())
    except Exception as error:  # bcc raises plain Exception
        raise HostCannotTraceError(
            f"the BPF programs could not be compiled: {error}\n{messages()}".rstrip(),
            remedy="sudo ebpfdns doctor",
        ) from error
    try:
        return _extract(bcc.lib, module)
    finally:
        module.cleanup()
        _give_memory_back()


def _bcc() -> Any:  # noqa: ANN401 - bcc has no types
    """Import bcc, or say how to get it."""
    try:
        import bcc  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - only needed to compile
    except (ImportError, OSError) as error:
        raise HostCannotTraceError(f"BCC's Python package is missing ({error})", remedy=INSTALL) from error
    if not hasattr(bcc, "lib"):
        raise HostCannotTraceError("the package `bcc` found here is not the BPF compiler", remedy=INSTALL)
    return bcc


def _extract(lib: Any, module: Any) -> Compiled:  # noqa: ANN401 - ctypes
    """Copy everything out of BCC's module."""
    handle = module.module
    lib.bpf_table_name.restype = ctypes.c_char_p
    for number_of in (
        lib.bpf_num_tables,
        lib.bpf_table_name,
        *(getattr(lib, f"bpf_table_{fact}") for fact in FACTS),
    ):
        number_of.argtypes = [ctypes.c_void_p] + [ctypes.c_size_t] * (number_of is not lib.bpf_num_tables)
    names: dict[int, str] = {}
    maps = []
    for number in range(lib.bpf_num_tables(handle)):
        plan = MapPlan(
            lib.bpf_table_name(handle, number).decode(),
            *(getattr(lib, f"bpf_table_{fact}")(handle, number) for fact in FACTS[1:]),
        )
        names[lib.bpf_table_fd_id(handle, number)] = plan.name
        maps.append(plan)
    functions, references = {}, {}
    for number in range(lib.bpf_num_functions(handle)):
        name = lib.bpf_function_name(handle, number)
        start, size = lib.bpf_function_start(handle, name), lib.bpf_function_size(handle, name)
        code = ctypes.string_at(start, size)
        functions[name.decode()] = code
        references[name.decode()] = _map_references(code, names)
    return Compiled(tuple(maps), functions, references, lib.bpf_module_license(handle))


def _map_references(code: bytes, names: dict[int, str]) -> tuple[tuple[int, str], ...]:
    """Which instructions load a map, by the map's name."""
    found = []
    for number, (opcode, registers, _, value) in enumerate(struct.iter_unpack("=BBhi", code)):
        if opcode == LOAD_WIDE and registers >> 4 == MAP_REFERENCE:
            found.append((number, names[value]))
    return tuple(found)


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
    try:
        for place in (path.parent, path):
            status = place.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        found = pickle.loads(path.read_bytes())  # noqa: S301 - our own file, see above
    except Exception:  # noqa: BLE001 - absent, unreadable, cut off, of another version: compile instead
        return None
    return found if isinstance(found, Compiled) else None


def _write(path: Path, result: Compiled) -> None:
    """Keep a result for the next start; where that is not possible (a read-only root) only time is lost."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o755, exist_ok=True)
        fd, draft = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(fd, "wb") as file:
            file.write(pickle.dumps(result))
        Path(draft).replace(path)


@contextlib.contextmanager
def _stderr_kept() -> Any:  # noqa: ANN401 - a generator of a function
    """Catch what the compiler writes to descriptor 2: it belongs into our message, not between log lines."""
    sys.stderr.flush()
    kept = os.dup(2)
    # In memory: a container's root is read-only, /tmp included.
    with os.fdopen(os.memfd_create("ebpfdns-compiler"), "w+b") as file:
        os.dup2(file.fileno(), 2)

        def text() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield text
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _give_memory_back() -> None:
    """The compiler's arenas are free now; let the system have them (glibc keeps them otherwise)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
