"""What a Go program says of how it was built: version of Go, module, settings (CGO_ENABLED, -tags, GOARCH …).

Owns: finding and reading .go.buildinfo, also in files without section headers.
Must not know: what follows from a setting.

Formats: debug/buildinfo/buildinfo.go and runtime/debug/mod.go of Go 1.27. Since 1.18 the texts follow the
32 bytes of the header; before, that had pointers to them. A file that makes no sense is none of Go's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ebpfdns.observe import elf_pointers
from ebpfdns.observe.elf_pointers import WORD_BYTES, Region

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.observe.elf_symbols import ElfFile

SECTION = ".go.buildinfo"
MAGIC = b"\xff Go buildinf:"
HEADER_BYTES, ALIGNMENT = 32, 16
MAX_TEXT_BYTES = 4 << 20
_POINTER_BYTES_AT, _FLAGS_AT, _POINTERS_AT = 14, 15, 16
_BIG_ENDIAN, _INLINE = 1, 2
_PF_W = 2
#: Around the module's text; the linker's way to find it again.
_FRAME_BYTES = 16
_MAX_VARINT_BYTES = 10
_VERSION = re.compile(r"\bgo(\d{1,3})\.(\d{1,4})(?:\.(\d{1,4}))?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`')
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """How a Go program was built."""

    version_text: str  # "go1.27.3", "devel go1.28-…", "go1.21.0 X:…"
    version: tuple[int, int, int]
    package: str | None = None  # the import path of main; "….test" for what `go test` built
    module: str | None = None
    settings: dict[str, str] = field(default_factory=dict)  # "CGO_ENABLED" → "1", "-tags" → "netgo,osusergo"


def read(elf: ElfFile) -> BuildInfo | None:
    """The build information of a file; None when it was not built by Go (or by gccgo, TinyGo, …)."""
    for region in _places(elf):
        texts = _texts(elf, region)
        found = texts and _parsed(*texts)
        if found:
            return found
    return None


def _places(elf: ElfFile) -> Iterator[Region]:
    """Where the header may be: in its section; without any, at the magic bytes in the writable data."""
    regions = [
        Region(section.offset, section.bytes, section.address)
        for section, name in zip(elf.sections, elf.section_names, strict=True)
        if name == SECTION
    ]
    # No linker leaves the section's name out: that most libraries are not Go's is known without their data.
    for region in regions or ([] if elf.sections else elf_pointers.loaded(elf, _PF_W)):
        for at in elf_pointers.find_all(elf, region, MAGIC, ALIGNMENT):
            into = at - region.address
            yield Region(region.offset + into, region.bytes - into, at)


def _texts(elf: ElfFile, region: Region) -> tuple[bytes, bytes] | None:
    """The version and the module's text; None when they are not there."""
    header = elf.read(region.offset, HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    flags = header[_FLAGS_AT]
    if not flags & _INLINE:
        if header[_POINTER_BYTES_AT] != WORD_BYTES or flags & _BIG_ENDIAN:
            return None
        at = region.address + _POINTERS_AT
        return _pointed_text(elf, at), _pointed_text(elf, at + WORD_BYTES)
    version, offset = _counted_text(elf, region.offset + HEADER_BYTES)
    return version, _counted_text(elf, offset)[0]


def _counted_text(elf: ElfFile, offset: int) -> tuple[bytes, int]:
    """A text after its length, and where it ends; empty when it makes no sense."""
    length = shift = 0
    for byte in elf.read(offset, _MAX_VARINT_BYTES):
        length |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that there is more
            text = elf.read(offset, length) if length <= MAX_TEXT_BYTES else b""
            return (text, offset + length) if len(text) == length else (b"", offset)
    return b"", offset


def _pointed_text(elf: ElfFile, pointer: int) -> bytes:
    """The text of the Go string that a pointer at this address points to."""
    places = elf_pointers.words_at(elf, pointer, 1)
    string = places and elf_pointers.words_at(elf, places[0], 2)
    if not string or string[1] > MAX_TEXT_BYTES:
        return b""
    text = elf.read_at(*string)
    return text if len(text) == string[1] else b""


def _parsed(version: bytes, module: bytes) -> BuildInfo | None:
    """The texts taken apart; None without a version."""
    text = version.decode("utf-8", "replace")
    numbers = _VERSION.search(text)
    if numbers is None or not text.isprintable():
        return None
    major, minor, patch = (int(number or 0) for number in numbers.groups())
    lines: dict[str, list[str]] = {}
    if len(module) > 2 * _FRAME_BYTES and module[-_FRAME_BYTES - 1 : -_FRAME_BYTES] == b"\n":
        for line in module[_FRAME_BYTES:-_FRAME_BYTES].decode("utf-8", "replace").splitlines():
            kind, _, rest = line.partition("\t")
            lines.setdefault(kind, []).append(rest)
    package = lines.get("path", [None])[0]
    name = lines.get("mod", [""])[0].split("\t")[0] or None
    settings = dict(_setting(line) for line in lines.get("build", ()))
    return BuildInfo(text, (major, minor, patch), package, name, settings)


def _setting(line: str) -> tuple[str, str]:
    """Name and value; each quoted as Go does it, where needed."""
    quoted = _QUOTED.match(line)
    key, rest = (_plain(quoted[0]), line[quoted.end() :]) if quoted else ("", line)
    more, _, value = rest.partition("=")
    return key + more, _plain(value)


def _plain(text: str) -> str:
    """A text without its quotes."""
    if not _QUOTED.fullmatch(text):
        return text
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1])
