"""From program text to instructions, by BCC.

Owns: the project's only import of bcc (Debian's python3-bpfcc; the package `bcc` on PyPI is something else).
Must not know: what the programs do, how they are attached, or that there is a cache.

Runs as a child process: text on stdin; on stdout a pickled `Compiled`, or the error to raise.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import struct
import sys
from typing import Any

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe import sources
from ebpfdns.observe.programs import Compiled, MapPlan

LOAD_WIDE, MAP_REFERENCE = 0x18, 1  # BPF_LD | BPF_IMM | BPF_DW, and BPF_PSEUDO_MAP_FD in the source register
#: libbcc's functions bpf_table_FACT(module, number), in the order of `MapPlan`
FACTS = ("fd_id", "type_id", "key_size_id", "leaf_size_id", "max_entries_id", "flags_id")
INSTALL = "apt-get install python3-bpfcc   (in a virtual environment: made with --system-site-packages)"


def main() -> None:
    """Compile what stands on stdin. The compiler's own words go to stderr."""
    result: Compiled | HostCannotTraceError
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libbcc prints
    try:
        result = compile_text(sys.stdin.read())
    except HostCannotTraceError as error:
        result = error
    stdout.write(pickle.dumps(result))
    stdout.flush()
    os._exit(0)  # nothing of the module is worth the time that tearing it down takes


def compile_text(text: str) -> Compiled:
    """Compile with BCC. HostCannotTraceError when it is missing."""
    bcc = _bcc()
    # BCC reads kernel headers from here: our stand-in, unless someone insists on real ones.
    os.environ.setdefault("BCC_KERNEL_SOURCE", str(sources.directory() / "headers"))
    try:
        module = bcc.BPF(text=text.encode())
    except Exception as error:  # bcc raises plain Exception; why stands on stderr
        raise HostCannotTraceError(
            f"the BPF programs could not be compiled: {error}", remedy="sudo ebpfdns doctor"
        ) from error
    return _extract(bcc.lib, module)


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
