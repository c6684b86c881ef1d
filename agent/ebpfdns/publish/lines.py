"""One event as one line: JSON, key order, and text that is safe to show.

Owns: how bytes, times and durations are written in a line.
Must not know: which fields an event has (`events.py`), where lines go (`output.py`), what time it is.
"""

from __future__ import annotations

import functools
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

#: A reader's eye finds who and what first; then the payload, the verdict, and what is behind it.
KEY_ORDER = (
    "v", "ts", "event", "message", "host", "process", "thread", "container", "k8s",
    "target", "lookup", "connect", "event_loop", "stats", "lost", "cause", "chain",
)  # fmt: skip

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)

#: Characters that Python counts as printable although nothing can be seen: fillers and variation selectors.
INVISIBLE = frozenset(
    map(
        chr,
        (
            0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0,
            *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0),
        ),
    )
)  # fmt: skip


def line(event: dict[str, Any]) -> bytes:
    """The event as one line of JSON, its keys in the contract's order, its newline included."""
    ordered = {key: event[key] for key in KEY_ORDER if key in event}
    if len(ordered) != len(event):
        ordered.update(event)
    try:
        return orjson.dumps(ordered, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return orjson.dumps(_encodable(ordered), option=orjson.OPT_APPEND_NEWLINE)


def printable(raw: bytes) -> str:
    r"""Text to show of bytes from outside: what is not UTF-8 or not visible becomes `\xNN`, a backslash two.

    Different bytes give different text, so nothing can pass itself off as something else by being escaped.
    """
    text = raw.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == "\\":
        return r"\\"
    if character.isprintable() and character not in INVISIBLE:
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _encodable(value: Any) -> Any:  # noqa: ANN401 - any part of an event
    """The same value with text that JSON cannot carry (half a surrogate pair) escaped."""
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if isinstance(value, str) and not value.isprintable():
        return printable(value.encode("utf-8", "surrogatepass"))
    return value


def printable_text(text: str) -> str:
    """`printable` for text that Python made of bytes from outside: file names, command names."""
    return printable(os.fsencode(text))


def rfc3339(wall_ns: int) -> str:
    """Nanoseconds since 1970 as UTC with six digits of a second: 2026-03-02T09:14:07.512345Z."""
    second, ns = divmod(wall_ns, NS_PER_S)
    return f"{_second(second)}.{ns // 1000:06d}Z"


def wall_ns(text: str) -> int | None:
    """What `rfc3339` was given, to the microsecond; None for a text that is none of its own."""
    try:
        return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND * 1000
    except (ValueError, TypeError):
        return None


@functools.lru_cache(maxsize=64)
def _second(second: int) -> str:
    at = time.gmtime(second)
    return (
        f"{at.tm_year:04d}-{at.tm_mon:02d}-{at.tm_mday:02d}T{at.tm_hour:02d}:{at.tm_min:02d}:{at.tm_sec:02d}"
    )


def milliseconds(duration_ns: int) -> float:
    """Nanoseconds as milliseconds with three digits, as every `_ms` field has them."""
    return round(duration_ns / NS_PER_MS, 3)
