"""The files beside resolv.conf that decide how a process resolves names, as it would find them itself.

Owns: nsswitch.conf, hosts and gai.conf in the root directory of a process, and their syntax.
Must not know: what a resolver makes of them. A part that may not be read is None, one that is absent says so.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Any

from ebpfdns.observe import proc_files
from ebpfdns.observe.processes import path_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 64 << 10
NSSWITCH, HOSTS, GAI = "/etc/nsswitch.conf", "/etc/hosts", "/etc/gai.conf"
_HOSTS_LINE = re.compile(r"^\s*hosts\s*:(.*)$", re.MULTILINE)
_WORD = re.compile(r"\[[^\]]*\]|[^\s\[]+")

Facts = dict[str, Any]


def nsswitch(root: str) -> Facts | None:
    """{present, hosts}: the sources of host names in order, with their [actions] as words between them."""
    text = read_text(root, NSSWITCH)
    return None if text is None else {"present": text != "", "hosts": parse_nsswitch(text)}


def parse_nsswitch(text: str) -> list[str]:
    """The words behind `hosts:`; none when no line has it. nsswitch.conf(5): a # begins a comment."""
    found = _HOSTS_LINE.search(re.sub(r"#.*", "", text))
    return _WORD.findall(found[1]) if found else []


def gai_conf(root: str) -> Facts | None:
    """{present, precedence}: its `precedence` lines as [prefix, number as text]."""
    text = read_text(root, GAI)
    if text is None:
        return None
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return {
        "present": text != "",
        "precedence": [words[1:3] for words in lines if words[:1] == ["precedence"]],
    }


def hosts_file(root: str, pid: int) -> Facts | None:
    """{size_bytes, mtime_wall_ns, read_position}: its length, and how far the process has read it."""
    try:
        found = os.stat(path_in_root(root, HOSTS))  # noqa: PTH116 - paths of /proc, often
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    position = next(_positions(pid, found.st_dev, found.st_ino), None)
    return {"size_bytes": found.st_size, "mtime_wall_ns": found.st_mtime_ns, "read_position": position}


def _positions(pid: int, device: int, inode: int) -> Iterator[int]:
    """Where descriptors of the process that refer to this file stand."""
    directory = f"/proc/{pid}/fd"
    try:
        fds = sorted(map(int, os.listdir(directory)))[-MAX_OPEN_FILES:]  # noqa: PTH208 - numbers, not paths
    except OSError:
        return
    for fd in fds:
        try:
            found = os.stat(f"{directory}/{fd}")  # noqa: PTH116
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (device, inode):
            match = re.search(r"^pos:\s*(\d+)", proc_files.text(f"/proc/{pid}/fdinfo/{fd}"), re.MULTILINE)
            if match:
                yield int(match[1])


#: A file that is being read right now has one of the highest numbers.
MAX_OPEN_FILES = 64


def read_text(root: str, path: str) -> str | None:
    """A file of the process; "" when it is absent, None when it may not be read."""
    try:
        fd = os.open(path_in_root(root, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return "" if os.path.exists(root) else None  # noqa: PTH110
    except OSError:
        return None
    try:
        return os.read(fd, MAX_BYTES).decode("utf-8", "backslashreplace")
    except OSError:
        return None
    finally:
        os.close(fd)
