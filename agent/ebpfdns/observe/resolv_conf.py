"""What a process's own /etc/resolv.conf says.

Owns: that file, found in the root directory of the process, and its syntax.
Must not know: what a resolver makes of it, or which server answers.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from ebpfdns.observe.processes import path_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/etc/resolv.conf"
MAX_BYTES = 256 << 10


class ResolvConf(TypedDict):
    """The file's words, all of them in their order; libcs use the first three servers only."""

    nameservers: list[str]
    search: list[str]
    options: list[str]
    present: bool | None  # None: may not be read
    path: NotRequired[str]
    target: NotRequired[str | None]  # after symbolic links, as the process names it
    size_bytes: NotRequired[int | None]
    mtime_wall_ns: NotRequired[int | None]
    replaced: NotRequired[bool | None]  # the file has no name any more: still mounted, and replaced outside


def resolv_conf(pid: int) -> ResolvConf:
    """Read the resolv.conf that this process would read."""
    root = f"/proc/{pid}/root"
    place = path_in_root(root, PATH)
    found = _content(pid, place)
    found |= {"path": PATH, "target": place.removeprefix(root)}
    found |= {"size_bytes": None, "mtime_wall_ns": None, "replaced": None}
    with contextlib.suppress(OSError):
        status = os.stat(place)  # noqa: PTH116 - a path of /proc
        found |= {"size_bytes": status.st_size, "mtime_wall_ns": status.st_mtime_ns}
        found["replaced"] = status.st_nlink == 0
    return found


def _content(pid: int, place: str) -> ResolvConf:
    try:
        # Not to wait if somebody put a pipe there.
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        is_process_there = Path(f"/proc/{pid}/root").exists()
        return {**parse_resolv_conf(b""), "present": False if is_process_there else None}
    except OSError:
        return {**parse_resolv_conf(b""), "present": None}
    try:
        return parse_resolv_conf(os.read(fd, MAX_BYTES))
    except OSError:
        return {**parse_resolv_conf(b""), "present": None}
    finally:
        os.close(fd)


def parse_resolv_conf(text: bytes) -> ResolvConf:
    """Understand a resolv.conf as glibc and musl do: keywords start a line, the last search list wins."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for keyword, words in _lines(text):
        if keyword == "nameserver":
            nameservers += words[:1]
        elif keyword == "options":
            options += words
        elif keyword == "search":
            search = words
        elif keyword == "domain":
            search = words[:1]
    return {"nameservers": nameservers, "search": search, "options": options, "present": True}


def _lines(text: bytes) -> Iterator[tuple[str, list[str]]]:
    """Each line's keyword and the words after it; a line that starts with anything else means nothing."""
    for line in text.decode("utf-8", "backslashreplace").split("\n"):
        words = line.split()
        if words and line.startswith(words[0]):
            yield words[0], words[1:]
