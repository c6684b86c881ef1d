"""`250ms`, `1s`, `2m` on the command line.

Owns: this notation. Must not know: which option it is for.
"""

from __future__ import annotations

import re

import click

UNITS_NS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


class Duration(click.ParamType[int]):
    """A time with its unit; becomes nanoseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; a usage error for anything else than a positive time."""
        if isinstance(value, int):
            return value
        match = _PATTERN.fullmatch(str(value).strip())
        found = int(float(match[1]) * UNITS_NS[match[2]]) if match else 0
        if found <= 0:
            self.fail(f"{value!r} is no time: write 250ms, 1s, 2m or 1h", param, ctx)
        return found
