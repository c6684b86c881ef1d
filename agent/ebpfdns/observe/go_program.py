"""A Go program, or a library with Go in it: its version, settings, and where its resolver's functions are.

Owns: which functions are wanted, and putting together what the file says. Must not know: BPF, or processes.

No error comes from here: a file that is not Go's is None, and what is not found is told in `missing`.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.observe import (
    elf_symbols,
    go_build_info,
    go_cache,
    go_layouts,
    go_members,
    go_returns,
    go_symbols,
)
from ebpfdns.observe.go_returns import CodeNotUnderstoodError
from ebpfdns.observe.go_tables import GoTablesError, open_tables

if TYPE_CHECKING:
    from ebpfdns.observe.elf_symbols import ElfFile
    from ebpfdns.observe.go_build_info import BuildInfo
    from ebpfdns.observe.go_layouts import GoLayout

#: Beside those whose arguments are known: who works for a lookup, and what cgo calls C with.
OTHER_FUNCTIONS = (
    "runtime.forEachGRace",  # knows where all goroutines are listed
    "net.(*Resolver).lookupIPAddr.func1",
    "internal/singleflight.(*Group).doCall",
    "net.cgoLookupIPCNAME",
    "net._C2func_getaddrinfo",
    "net._C2func_getnameinfo",
    "net._C2func_res_search",
    "net._Cfunc_res_search",
)
#: An error is known by its type's own method: the first word of an error points to its itab, whose fourth
#: word is the address of that.
ERRORS = (
    "net.(*DNSError).Error",
    "net.(*OpError).Error",
    "errors.(*errorString).Error",
    "context.deadlineExceededError.Error",
)
WANTED = frozenset([*go_layouts.SIGNATURES, *OTHER_FUNCTIONS, *ERRORS])
MAX_FUNCTION_BYTES = 256 << 10
ARCHITECTURES = {machine: name for name, machine in (("amd64", 62), ("arm64", 183))}
_PT_LOAD = 1


class GoFunction(NamedTuple):
    """A function of Go."""

    name: str
    entry: int  # offset in the file
    returns: tuple[int, ...]  # offsets in the file of every RET
    address: int  # as the file is linked
    bytes: int
    checksum: int  # of its code: what was found once holds for this code only


@dataclass(frozen=True, slots=True)
class GoProgram:
    """What is known of one file."""

    path: str
    device: int
    inode: int
    version: tuple[int, int, int]
    version_text: str
    package: str | None  # of main; "….test": what `go test` built
    module: str | None
    settings: dict[str, str]
    is_stripped: bool
    #: How much the address of a byte of code, as linked, is higher than its offset in the file. In memory it
    #: is at: start of the mapping + its offset in the file - offset of the mapping.
    load_base: int
    functions: dict[str, GoFunction] = field(default_factory=dict)
    layout: GoLayout | None = None
    missing: tuple[str, ...] = ()  # what is not known, for people

    @property
    def has_cgo_lookup(self) -> bool | None:
        """Whether it can call getaddrinfo; None: its functions were not found."""
        return self.uses_cgo if self.functions else None

    @property
    def uses_cgo(self) -> bool:
        """Whether it can call C's resolver."""
        return "net.cgoLookupIP" in self.functions and any("_getaddrinfo" in name for name in self.functions)


def find(path: str, *, of_any_machine: bool = False) -> GoProgram | None:
    """The Go program in a file (/proc/PID/exe, a library); None when there is none, or it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        elf = elf_symbols.parse(fd, of_any_machine=of_any_machine)
        info = None if elf is None else go_build_info.read(elf)
        return None if elf is None or info is None else _program(path, elf, info)
    except OSError:  # it was cut off, or the disk fails
        return None
    finally:
        os.close(fd)


def _program(path: str, elf: ElfFile, info: BuildInfo) -> GoProgram:
    """What the file says."""
    status = os.fstat(elf.fd)
    executable = [segment for segment in elf.segments if segment.type == _PT_LOAD and segment.flags & 1]
    load_base = executable[0].address - executable[0].offset if executable else 0
    found = GoProgram(
        path,
        status.st_dev,
        status.st_ino,
        info.version,
        info.version_text,
        info.package,
        info.module,
        info.settings,
        is_stripped=not elf.has_symbol_table,
        load_base=load_base,
    )
    architecture = ARCHITECTURES.get(elf.machine)
    layout = go_layouts.layout_of(info.version[:2], architecture or "")
    if layout is None:
        return replace(found, missing=(f"lookups of Go: {_unknown(info, architecture)}",))
    layout, doubts = _checked(elf, info, layout)
    functions, gaps = _functions(elf)
    return replace(found, functions=functions, layout=layout, missing=(*doubts, *gaps))


def _unknown(info: BuildInfo, architecture: str | None) -> str:
    if architecture is None:
        return "its machine is neither amd64 nor arm64"
    oldest = ".".join(map(str, go_layouts.OLDEST))
    return f"{info.version_text} is older than Go {oldest}, it passes arguments in other ways"


def _checked(elf: ElfFile, info: BuildInfo, layout: GoLayout) -> tuple[GoLayout, tuple[str, ...]]:
    """The layout of a Go newer than the table, as far as the program's own debug information tells it."""
    if layout.is_verified:
        return layout, ()
    members = go_members.offsets(elf, "runtime.g", "stack", ("goid", "parentGoid"))
    goid = members.get("goid")
    if goid is not None:
        layout = replace(layout, goid_offset=goid, parent_goid_offset=members.get("parentGoid"))
    newest = ".".join(map(str, go_layouts.NEWEST_CHECKED))
    doubt = "arguments of its resolver" if goid is not None else "goroutine ids and arguments of its resolver"
    return layout, (f"lookups of Go: {info.version_text} is newer than Go {newest}; {doubt} are unverified",)


def _functions(elf: ElfFile) -> tuple[dict[str, GoFunction], tuple[str, ...]]:
    """The wanted functions, and what is not known of them: as kept from before, if their code is the same."""
    kept = go_cache.read(elf, WANTED)
    if kept is not None:
        functions = {row[0]: GoFunction(*row) for row in kept.functions}
        if all(_checksum(elf, function) == function.checksum for function in functions.values()):
            return functions, kept.missing
    try:
        functions, missing = _searched(elf)
    except GoTablesError as error:
        return {}, (f"lookups of Go: {error}",)
    go_cache.write(elf, WANTED, go_cache.Kept(tuple(functions.values()), missing))
    return functions, missing


def _searched(elf: ElfFile) -> tuple[dict[str, GoFunction], tuple[str, ...]]:
    """The wanted functions by the table that every Go program has, else by the symbols of ELF."""
    try:
        entries = open_tables(elf).functions_named(WANTED)
        # A function and its wrapper for the other calling convention have one name; calls pass the former.
        extents = {
            name: (entry.address, entry.end - entry.address)
            for name, found in entries.items()
            for entry in [min(found, key=lambda entry: entry.kind)]
        }
    except GoTablesError:
        extents = go_symbols.extents(elf, WANTED)
        if not extents:
            raise
    functions, missing = {}, []
    for name, (address, size) in sorted(extents.items()):
        try:
            functions[name] = _function(elf, name, address, size)
        except CodeNotUnderstoodError as error:
            missing.append(f"{name}: {error}")
    return functions, tuple(missing)


def _function(elf: ElfFile, name: str, address: int, size: int) -> GoFunction:
    """A function with the places where it returns."""
    code = elf.read_at(address, min(size, MAX_FUNCTION_BYTES))
    entry = elf.file_offset(address)
    if entry is None or len(code) < size:
        raise CodeNotUnderstoodError("its code is not in the file as a whole")
    returns = () if name in ERRORS else go_returns.returns_in(code, address, elf.machine)
    offsets = tuple(at - address + entry for at in returns)
    return GoFunction(name, entry, offsets, address, size, zlib.crc32(code))


def _checksum(elf: ElfFile, function: GoFunction) -> int:
    return zlib.crc32(elf.read(function.entry, min(function.bytes, MAX_FUNCTION_BYTES)))
