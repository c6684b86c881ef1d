"""All that decides which of Go's two resolvers a process takes: its build, environment, files, host name.

Owns: gathering these, each read as the process itself would read it. Must not know: what follows from them.

A part that may not be read is None.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Any, Protocol

from ebpfdns.observe import go_files, proc_files
from ebpfdns.observe.host_name import host_name
from ebpfdns.observe.processes import path_in_root

if TYPE_CHECKING:
    from collections.abc import Mapping

Facts = dict[str, Any]

RESOLV_CONF, NSSWITCH, MDNS_ALLOW = "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/mdns.allow"
SETTINGS = ("CGO_ENABLED", "-tags", "DefaultGODEBUG")
VARIABLES = ("GODEBUG", "LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES")
MAX_BYTES = 64 << 10


class Built(Protocol):
    """What is known of a Go program."""

    @property
    def version(self) -> tuple[int, int, int]:
        """Of Go."""

    @property
    def settings(self) -> Mapping[str, str]:
        """Of the build."""

    @property
    def functions(self) -> Mapping[str, object]:
        """Of its resolver; none when they were not found."""

    @property
    def uses_cgo(self) -> bool:
        """Whether getaddrinfo's caller is among them."""


def go_surroundings(tid: int, built: Built, *, started_wall_ns: int) -> Facts:
    """Everything at once. `tid`: a thread of it that is alive."""
    return {
        "version": list(built.version),
        "settings": {name: built.settings[name] for name in SETTINGS if name in built.settings},
        "has_cgo_lookup": built.uses_cgo if built.functions else None,
        "environment": _environment(tid),
        "host_name": host_name(tid),
        **files(tid, f"/proc/{tid}/root", built.version[:2], started_wall_ns),
    }


def files(tid: int, root: str, version: tuple[int, int], started_wall_ns: int) -> Facts:
    """{resolv_conf, nsswitch, mdns_allow} below a directory; is_newer: changed since the process began."""
    found: Facts = {"resolv_conf": None, "nsswitch": None, "mdns_allow": _absence(tid, root, MDNS_ALLOW)}
    conf, nsswitch = _file(tid, root, RESOLV_CONF), _file(tid, root, NSSWITCH)
    if conf is not None:
        error, text, mtime_ns = conf
        unknown = go_files.unknown_in(text, version)
        found["resolv_conf"] = {"error": error, "unknown": unknown, "is_newer": mtime_ns > started_wall_ns}
    if nsswitch is not None:
        error, text, mtime_ns = nsswitch
        read = {"error": error, "sources": []} if error else go_files.sources_of(text)
        found["nsswitch"] = {**read, "is_newer": mtime_ns > started_wall_ns}
    return found


def _file(tid: int, root: str, path: str) -> tuple[str | None, str, int] | None:
    """(error, text, mtime_ns) as the process meets it; None when the agent may not look."""
    place = path_in_root(root, path)
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        return None
    except OSError as error:
        return (_error_name(error), "", 0) if os.path.exists(root) else None  # noqa: PTH110 - of /proc
    try:
        status = os.fstat(fd)
        if not _may_read(tid, status):
            return "EACCES", "", status.st_mtime_ns
        return None, os.read(fd, MAX_BYTES).decode("utf-8", "backslashreplace"), status.st_mtime_ns
    except OSError as error:
        return _error_name(error), "", 0
    finally:
        os.close(fd)


def _absence(tid: int, root: str, path: str) -> str | None:
    """What its own stat would say: nothing, ENOENT or another error; None: the agent may not look."""
    try:
        os.stat(path_in_root(root, path))  # noqa: PTH116 - a path of /proc
    except PermissionError:
        return None
    except OSError as error:
        return _error_name(error) if os.path.exists(f"/proc/{tid}") else None  # noqa: PTH110
    return ""


def _may_read(tid: int, status: os.stat_result) -> bool:
    """Whether its user may read a file, by the bits; root may."""
    fields = dict(line.partition(":")[::2] for line in proc_files.text(f"/proc/{tid}/status").splitlines())
    users = fields.get("Uid", "").split()
    if len(users) < 2 or users[1] == "0" or status.st_mode & stat.S_IROTH:  # noqa: PLR2004 - real, effective
        return True
    groups = {*fields.get("Gid", "").split()[1:2], *fields.get("Groups", "").split()}
    if int(users[1]) == status.st_uid:
        return bool(status.st_mode & stat.S_IRUSR)
    return str(status.st_gid) in groups and bool(status.st_mode & stat.S_IRGRP)


def _environment(tid: int) -> dict[str, str] | None:
    """As it was at the start; of a variable that is there twice Go takes the first. None: may not be read."""
    try:
        with open(f"/proc/{tid}/environ", "rb") as file:  # noqa: PTH123 - of /proc
            raw = file.read()
    except OSError:
        return None
    found: dict[str, str] = {}
    for entry in raw.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and name.decode("ascii", "replace") in VARIABLES:
            found.setdefault(name.decode("ascii"), value.decode("utf-8", "backslashreplace"))
    return found


def _error_name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "EIO")
