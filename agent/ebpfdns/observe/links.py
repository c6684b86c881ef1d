"""The symbolic links between a path and the file it means, one after the other, in a process's own root.

Owns: that chain. Must not know: whose file it is.
"""

from __future__ import annotations

import os
import posixpath

from ebpfdns.observe.processes import MAX_SYMLINKS, path_in_root


def links(root: str, path: str) -> list[str]:
    """Where each link leads, absolute in `root`: [] for a plain file, or for none."""
    found: list[str] = []
    here = path
    while len(found) < MAX_SYMLINKS:
        folder = path_in_root(root, posixpath.dirname(here))
        try:
            target = os.readlink(f"{folder}/{posixpath.basename(here)}")  # noqa: PTH115 - a path of /proc
        except OSError:
            break
        inside = folder.removeprefix(root).rstrip("/") or "/"
        here = posixpath.normpath(posixpath.join(inside, target))
        found.append(here)
    return found
