"""Recordings: what the pipeline was fed, one item a line, and read back up to wherever the file ends.

Owns: the file format (a header line, then JSON lines). Must not know: what an item means.
A recording holds names and addresses as they were seen. Cut off anywhere, it replays up to the cut.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from ebpfdns.correlate import items
from ebpfdns.errors import EbpfdnsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC, FORMAT = "ebpfdns recording", 1


class Recorder:
    """Writes items as they are fed. A full disk ends it, never the tracing: `lost` counts the rest."""

    def __init__(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EbpfdnsError(f"cannot write the recording {path}: {error.strerror}") from error
        self._file = os.fdopen(fd, "wb", buffering=0)
        self.lost = 0
        self._is_broken = not self._write({"file": MAGIC, "format": FORMAT})

    def record(self, item: items.Item) -> None:
        """Append one item."""
        if self._is_broken or not self._write(items.to_json(item)):
            self._is_broken = True
            self.lost += 1

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, values: dict[str, Any]) -> bool:
        """Append a line; False when not all of it went."""
        rest = memoryview(_line(values))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            return False
        return True


def _line(values: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:  # half a surrogate pair: a byte of a path that is no UTF-8
        return json.dumps(values).encode() + b"\n"


def _values(line: bytes) -> object:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line)


def read_items(path: Path) -> Iterator[items.Item]:
    """Every whole item of a recording; UsageError when the file is none."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        _check_header(path, file)
        for line in file:
            if not line.endswith(b"\n"):
                return  # cut off in the middle of a line
            try:
                yield items.from_json(_values(line))
            except ValueError as error:
                raise EbpfdnsError(
                    f"{path} is damaged: {error}", remedy="record it again with --record"
                ) from error


def _check_header(path: Path, file: BinaryIO) -> None:
    line = file.readline()
    with contextlib.suppress(ValueError):
        header = orjson.loads(line)
        if isinstance(header, dict) and header.get("file") == MAGIC:
            if header.get("format") == FORMAT:
                return
            raise UsageError(
                f"{path} is a recording of another format ({header.get('format')}, not {FORMAT})"
            )
    raise UsageError(f"{path} is no recording of ebpfdns", remedy="ebpfdns attach --pid PID --record FILE")
