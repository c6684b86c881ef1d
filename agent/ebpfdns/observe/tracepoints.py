"""Which tracepoints this kernel has, and how their records are laid out.

Owns: EVENTS/format files in tracefs.
Must not know: what is traced with them.
"""

from __future__ import annotations

import re
from pathlib import Path

_FIELD = re.compile(r"^\tfield:[^;]*?(\w+)(?:\[[^;]*\])?;\toffset:(\d+);\tsize:(\d+);", re.MULTILINE)

Layout = dict[str, tuple[int, int]]


def tracepoint_layout(tracefs: str, name: str) -> Layout | None:
    """Field → (offset, size) of the tracepoint `group/name`; None when this kernel has no such one.

    PermissionError without root (tracefs is its own), and with root under lockdown=confidentiality.
    """
    try:
        return parse_format((Path(tracefs) / "events" / name / "format").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def parse_format(text: str) -> Layout:
    """The fields in the text of a format file, the ones common to all tracepoints left out."""
    fields = {match[1]: (int(match[2]), int(match[3])) for match in _FIELD.finditer(text)}
    return {name: place for name, place in fields.items() if not name.startswith("common_")}
