"""What flows into the middle: every input there is, as plain values, and each as one line of a recording.

Owns: the input types and their JSON form.
Must not know: where they come from (`observe`), what becomes of them.
Each carries the time it was made at, on both clocks: nothing behind this point looks at a clock.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ebpfdns.correlate.tracker import Name

#: Loss stages, by the names that people meet in `lost` lines, with what helps against each.
Losses = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Times of an input: CLOCK_MONOTONIC for arithmetic, wall clock for people."""

    now_ns: int
    wall_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Item):
    """The agent starts: everything that is chosen once."""

    version: str
    host: str
    stuck_after_ns: int
    slow_after_ns: int
    publish_all: bool
    redact_key: str | None = None  # names are hashed with it


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached(Item):
    """A process is traced from now on; again after it started another program."""

    pid: int
    process: dict[str, Any]  # as in the event lines: pid, vpid?, executable, start_time
    around: dict[str, Any]  # container, k8s: what is known
    resolver: str  # glibc, musl, unknown
    coverage: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone(Item):
    """A process is not traced any more."""

    pid: int
    status: str  # exited, detached


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames(Item):
    """Frames of the ring buffer, in order."""

    frames: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall:
    """A library call without a record: it has asked nobody yet."""

    key: int
    call: bytes  # struct call
    name: bytes | None  # read from the process's memory
    thread_name: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan(Item):
    """What is due for a line, and what is no longer open although nothing told its end."""

    lookups: list[bytes] = field(default_factory=list)
    calls: list[OpenCall] = field(default_factory=list)
    connects: list[bytes] = field(default_factory=list)
    waits: dict[str, bytes] = field(default_factory=dict)  # tid → struct wait
    threads: dict[str, dict[str, Any]] = field(default_factory=dict)  # tid → snapshot
    resolv_confs: dict[str, dict[str, Any]] = field(default_factory=dict)  # pid → /etc/resolv.conf
    vanished: list[Name] = field(default_factory=list)
    expired_lookups: list[bytes] = field(default_factory=list)  # nothing will end them, and they are dropped
    expired_connects: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Item):
    """Loss counters have moved: totals since the start."""

    totals: Losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Item):
    """Time for a stats line."""

    counters: list[int]
    histograms: list[list[int]]
    agent: dict[str, Any]


ITEMS: dict[str, type[Item]] = {
    kind.__name__.lower(): kind for kind in (Started, Attached, Gone, Frames, Scan, Lost, Stats)
}


def to_json(item: Item) -> dict[str, Any]:
    """The item as JSON values; bytes become {"b64": text}."""
    return {"item": type(item).__name__.lower()} | {
        entry.name: _encoded(getattr(item, entry.name)) for entry in fields(item)
    }


def from_json(values: dict[str, Any]) -> Item:
    """The item again. ValueError when these are no values of an item."""
    values = dict(values)
    kind = ITEMS.get(values.pop("item", ""))
    if kind is None:
        raise ValueError("no such item")
    decoded = {name: _decoded(value) for name, value in values.items()}
    if kind is Scan:
        decoded["calls"] = [OpenCall(**call) for call in decoded["calls"]]
        decoded["vanished"] = [(entry[0], entry[1], entry[2]) for entry in decoded["vanished"]]
    try:
        return kind(**decoded)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _encoded(value: Any) -> Any:  # noqa: ANN401 - any JSON value, and bytes
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, OpenCall):
        return {entry.name: _encoded(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_encoded(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): _encoded(entry) for name, entry in value.items()}
    return value


def _decoded(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return base64.b64decode(value["b64"])
        return {name: _decoded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value
