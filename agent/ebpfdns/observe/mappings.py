"""Which files a process has mapped, and how the agent can open them.

Owns: /proc/PID/maps and /proc/PID/map_files.
Must not know: what the files are.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ebpfdns.errors import HostCannotTraceError, NoSuchTargetError

_LINE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)(?: +(.*))?$", re.MULTILINE
)
_DELETED = b" (deleted)"


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapped piece of a file, or of memory of no file: then its inode is 0."""

    start: int
    end: int
    permissions: str
    offset: int
    device: int  # as os.makedev has it
    inode: int
    path: str  # as the process sees it
    is_deleted: bool

    @property
    def is_executable(self) -> bool:
        """Whether code can run in it."""
        return "x" in self.permissions


def read_maps(pid: int) -> list[Mapping]:
    """The file mappings of a process."""
    return parse_maps(read_maps_text(pid))


def read_maps_text(pid: int) -> bytes:
    """All that a process has mapped, a line each, by ascending addresses."""
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except PermissionError as error:
        raise HostCannotTraceError(
            f"may not read which files process {pid} has mapped ({error.strerror})",
            remedy="sudo ebpfdns …, or give the container CAP_SYS_PTRACE",
        ) from error
    except OSError as error:
        raise NoSuchTargetError(f"process {pid} is gone", remedy="ps -e") from error


def parse_maps(text: bytes, *, anonymous: bool = False) -> list[Mapping]:
    """The file mappings in the text of a /proc/PID/maps; memory of no file (inode 0) only when asked for."""
    return [_mapping(match.groups(b"")) for match in _LINE.finditer(text) if anonymous or match[7] != b"0"]


def openable_path(pid: int, mapping: Mapping) -> str | None:
    """A path by which the agent reaches the very file that is mapped; None when there is none.

    By its name, when that still leads to the same file; else through map_files, which also reaches files that
    were deleted or replaced, but asks for CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE.
    """
    by_name = f"/proc/{pid}/root{mapping.path}"
    by_address = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
    name_key, address_key = _file_key(by_name), _file_key(by_address)
    if name_key is not None and name_key in (address_key, (mapping.device, mapping.inode)):
        return by_name
    if address_key is not None:
        return by_address
    # btrfs and overlayfs number devices differently in maps and in stat: without map_files the inode must do.
    is_same_inode = name_key is not None and name_key[1] == mapping.inode and not mapping.is_deleted
    return by_name if is_same_inode else None


def _mapping(fields: tuple[bytes, ...]) -> Mapping:
    r"""One line's fields; the kernel writes a newline in a path as \012."""
    start, end, permissions, offset, major, minor, inode, path = fields
    return Mapping(
        start=int(start, 16),
        end=int(end, 16),
        permissions=permissions.decode(),
        offset=int(offset, 16),
        device=os.makedev(int(major, 16), int(minor, 16)),
        inode=int(inode),
        path=os.fsdecode(path.removesuffix(_DELETED).replace(rb"\012", b"\n")),
        is_deleted=path.endswith(_DELETED),
    )


def _file_key(path: str) -> tuple[int, int] | None:
    """Device and inode of the file at `path`; None when it cannot be reached."""
    try:
        found = os.stat(path)  # noqa: PTH116 - one call, for every mapping looked at
    except OSError:
        return None
    return found.st_dev, found.st_ino
