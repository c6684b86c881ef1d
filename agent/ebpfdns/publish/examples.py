"""One example of each kind of line, as the documentation shows it.

Owns: examples.jsonl beside this file: values that illustrate, held against the schema by a test.
Must not know: anything that was observed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

FILE = Path(__file__).with_name("examples.jsonl")


def examples() -> dict[str, dict[str, Any]]:
    """Kind → an event of that kind, made anew at each call."""
    events = map(orjson.loads, FILE.read_bytes().splitlines())
    return {event["event"]: event for event in events}
