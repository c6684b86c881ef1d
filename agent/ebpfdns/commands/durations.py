"""`250ms`, `1s`, `2m` on the command line.

Owns: this notation. Must not know: which option it is for.
"""

from __future__ import annotations

import re
from decimal import Decimal

import click

UNITS_NS = {"ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000}
LONGEST_NS = 10_000 * UNITS_NS["h"]
_PATTERN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)", re.ASCII)


class Duration(click.ParamType[int]):
    """A time with its unit; becomes nanoseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds; a usage error for anything else than a positive time."""
        if isinstance(value, int):
            return value
        match = _PATTERN.fullmatch(str(value).strip())
        found = int(Decimal(match[1]) * UNITS_NS[match[2]]) if match else 0
        if not 0 < found <= LONGEST_NS:
            self.fail(f"{value!r} is no time: write 250ms, 1s, 2m or 1h, up to 10000h", param, ctx)
        return found
