"""Which libc a process has mapped, and where its lookup functions start.

Owns: telling glibc from musl, their versions, and the list of functions that start a lookup.
Must not know: BPF, or what is done at those functions.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from ebpfdns.observe import elf_symbols, mappings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.elf_symbols import ElfFile
    from ebpfdns.observe.processes import Process

LibcKind = Literal["glibc", "musl"]

#: What a program calls to look a name up. glibc before 2.34 has res_* in libresolv, mostly as __res_*.
LOOKUP_FUNCTIONS = (
    "getaddrinfo",
    "gethostbyname",
    "gethostbyname2",
    "gethostbyname_r",
    "gethostbyname2_r",
    "gethostbyaddr",
    "gethostbyaddr_r",
    "getnameinfo",
    "res_query",
    "res_search",
    "res_querydomain",
    "res_send",
    "res_nquery",
    "res_nsearch",
    "res_nquerydomain",
    "res_nsend",
)
_WANTED = frozenset([*LOOKUP_FUNCTIONS, *(f"__{name}" for name in LOOKUP_FUNCTIONS)])

_GLIBC_NAME = re.compile(r"libc\.so\.6|libc-2\.\d+\.so")
_LIBRESOLV_NAME = re.compile(r"libresolv(-2\.\d+)?\.so(\.2)?")
_MUSL_NAME = re.compile(r"ld-musl-[^/]+\.so\.1|libc\.musl-[^/]+\.so\.1")
_UNTOLD_NAME = "libc.so"  # Debian's musl, its ld-musl being a link to it; or Android's, which is neither

_GLIBC_BANNER = re.compile(rb"GNU C Library [^\n]{0,80}?version (\d+\.\d+(?:\.\d+)?)")
_MUSL_BANNER = b"musl libc ("
_MUSL_VERSION = re.compile(rb"\0(\d{1,2}\.\d{1,2}\.\d{1,2}(?:-git-\d+-g?[0-9a-f]+)?)(?=\0)")
_MUSL_FUNCTIONS = frozenset({"__init_libc", "__libc_start_init"})  # in every program, of musl only
_GLIBC_FUNCTIONS = frozenset({"__libc_setup_tls", "__libc_init_secure", "_dl_relocate_static_pie"})
_MUSL_SUCCESS = b"\0No error information\0"  # its strerror(0); glibc says "Success"
_MAX_LIBC_BYTES = 16 << 20
_MAX_SEEN = 1024


@dataclass(frozen=True, slots=True)
class Library:
    """A libc, or a part of one, in a process."""

    kind: LibcKind
    version: str | None
    path: str  # for the agent to open
    inode: int
    device: int
    functions: dict[str, int]  # name → offset in the file; one name for each distinct function
    missing: str | None  # why there are no functions


@dataclass(frozen=True, slots=True)
class _Contents:
    """What one file says of itself, whoever has it mapped."""

    kind: LibcKind | None
    version: str | None
    functions: dict[str, int]
    missing: str | None


#: (device, inode, mtime, size) → what the file says: two targets with one libc read it once.
_seen: dict[tuple[int, int, int, int], _Contents] = {}


def find_libraries(process: Process) -> list[Library]:
    """Each libc that the process has mapped; [] for a program without one, or whose libc cannot be told."""
    pid = process.alive_tid
    executable = [mapping for mapping in mappings.read_maps(pid) if mapping.is_executable]
    found: list[Library] = []
    for mapping in {(mapping.device, mapping.inode): mapping for mapping in executable}.values():
        name = mapping.path.rpartition("/")[2]
        kind = _kind_by_name(name)
        path = mappings.openable_path(pid, mapping) if kind or name == _UNTOLD_NAME else None
        library = _library(path, kind, is_program=False) if path else None
        if library is not None:
            found.append(library)
    if not found:
        program = _library(f"/proc/{pid}/exe", None, is_program=True)
        return [program] if program else []
    version = next((library.version for library in found if library.version), None)
    return [library if library.version else replace(library, version=version) for library in found]


def find_in_program(path: str, loader: str | None, known: Sequence[Library]) -> list[Library]:
    """What the program in this file will have mapped, as far as its file says; [] when it does not.

    `known`: libcs of the same root directory. A loader of glibc's will load the one that is among them;
    musl's loader is musl itself.
    """
    own = _library(path, None, is_program=True)
    if own is not None:
        return [own]
    if loader is None:
        return []
    if _MUSL_NAME.fullmatch(loader.rpartition("/")[2]):
        musl = _library(loader, "musl", is_program=False)
        return [musl] if musl else []
    return [library for library in known if library.kind == "glibc"]


def loader_of(path: str, root: str) -> str | None:
    """The dynamic loader of the program in this file, to be opened by us; None for a static program."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        elf = elf_symbols.parse(fd)
        return None if elf is None or elf.loader is None else root + elf.loader
    finally:
        os.close(fd)


def _kind_by_name(name: str) -> LibcKind | None:
    """Which libc has files of this name; None for any other file."""
    if _GLIBC_NAME.fullmatch(name) or _LIBRESOLV_NAME.fullmatch(name):
        return "glibc"
    return "musl" if _MUSL_NAME.fullmatch(name) else None


def _library(path: str, kind_by_name: LibcKind | None, *, is_program: bool) -> Library | None:
    """What the file at `path` is; None when it holds no libc, or cannot be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        contents = _seen.get(key)
        if contents is None:
            contents = _read_program(fd) if is_program else _read_library(fd, status.st_size, kind_by_name)
            _remember(key, contents)
    finally:
        os.close(fd)
    if contents.kind is None:
        return None
    return Library(
        kind=contents.kind,
        version=contents.version,
        path=path,
        inode=status.st_ino,
        device=status.st_dev,
        functions=dict(contents.functions),
        missing=contents.missing,
    )


def _remember(key: tuple[int, int, int, int], contents: _Contents) -> None:
    """Keep what was read; forget the oldest, so that a year of new programs does not fill the memory."""
    while len(_seen) >= _MAX_SEEN:
        del _seen[next(iter(_seen))]
    _seen[key] = contents


def _read_library(fd: int, size: int, kind_by_name: LibcKind | None) -> _Contents:
    """Read a shared libc or libresolv; one that is not for this machine's own programs has no functions."""
    kind, version = libc_version(os.pread(fd, min(size, _MAX_LIBC_BYTES), 0))
    kind = kind or kind_by_name
    elf = elf_symbols.parse(fd)
    if elf is None:
        return _Contents(kind, version, {}, "it is for 32-bit programs or another kind of machine")
    functions = elf_symbols.functions_in(elf, _WANTED)
    return _Contents(kind, version, functions, None if functions else "it exports no lookup function")


def libc_version(contents: bytes) -> tuple[LibcKind | None, str | None]:
    """Kind and version of the libc with these bytes; None for what they do not say beyond doubt."""
    glibc = _GLIBC_BANNER.search(contents)
    if glibc:
        return "glibc", glibc.group(1).decode()
    if _MUSL_BANNER in contents:
        versions = set(_MUSL_VERSION.findall(contents))
        return "musl", versions.pop().decode() if len(versions) == 1 else None
    return None, None


def _read_program(fd: int) -> _Contents:
    """Read a program that may have a libc linked in. Such a libc does not tell its version."""
    elf = elf_symbols.parse(fd)
    if elf is None or not elf.is_static:
        return _Contents(None, None, {}, None)
    kind = _static_kind(elf)
    functions = elf_symbols.functions_in(elf, _WANTED) if kind else {}
    missing = None if functions else "no lookup function in it"
    if not elf.has_symbol_table:
        missing = "linked statically and stripped: it has no symbols"
    return _Contents(kind, None, functions, missing)


def _static_kind(elf: ElfFile) -> LibcKind | None:
    """Which libc is linked into a static program; None for none (Go), or one that cannot be told."""
    if elf.has_symbol_table:
        if elf_symbols.functions_in(elf, _MUSL_FUNCTIONS):
            return "musl"
        return "glibc" if elf_symbols.functions_in(elf, _GLIBC_FUNCTIONS) else None
    if elf.has_abi_tag:
        return "glibc"
    is_go = ".go.buildinfo" in elf.section_names
    return "musl" if not is_go and _MUSL_SUCCESS in (elf.section(".rodata") or b"") else None
