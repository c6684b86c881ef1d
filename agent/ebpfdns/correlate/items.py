"""What flows into the middle: every input there is, as plain values, and each as one line of a recording.

Owns: the input types and their JSON form.
Must not know: where they come from (`observe`), what becomes of them.
Each carries the time it was made at, on both clocks: nothing behind this point looks at a clock.
"""

from __future__ import annotations

import base64
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from ebpfdns.model import boundary

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.correlate.tracker import Name

Made = TypeVar("Made")

#: Loss stages, by the names that people meet in `lost` lines, with what helps against each.
Losses = dict[str, int]
#: Of some process, by its pid as text.
Counts = dict[str, int]
#: [address, when the process last had a connection to it, whether a connect to it is stuck]
Addresses = list[list[Any]]
#: One number for each `Counter`; one row for each latency: the sum in ns, then the buckets.
Counters = list[int]
Histograms = list[list[int]]


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
    is_foretold: bool = False  # it does not run yet: its next exec brings nothing new
    #: of a Go program: what decides which of Go's resolvers it takes
    go: dict[str, Any] = field(default_factory=dict)
    role: str = "target"  # supporting: a daemon that targets ask
    #: of systemd-resolved: as `observe.resolved_settings` gives them
    settings: dict[str, Any] = field(default_factory=dict)
    #: of a daemon: the addresses of its own host where it was found to answer, when it was followed
    serves: list[str] = field(default_factory=list)


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
    go: dict[str, dict[str, Any]] = field(default_factory=dict)  # pid → as in Attached, read again
    #: "host pid address" → plain_ns, edns_ns: when that server last answered each kind of question
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)  # pid → snapshot of the process
    #: key of a lookup from before tracing → what its goroutine's stack showed then: {call, name, questions}
    goroutines: dict[str, dict[str, Any]] = field(default_factory=dict)
    siblings: dict[str, Addresses] = field(default_factory=dict)  # key of a connect → beside its own
    #: pid → "udp:40001" → {fd, rx_queue_bytes}: sockets that an answer has come to
    queues: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: pid → what a daemon that is asked does itself: as `observe.followed` gives it
    daemons: dict[str, dict[str, Any]] = field(default_factory=dict)
    libc_calls: Counts = field(default_factory=dict)  # pid → how many are in libc's resolver
    vanished: list[Name] | None = None  # of those told of as open; None: not looked for
    expired_lookups: list[bytes] = field(default_factory=list)  # nothing will end them, and they are dropped
    expired_connects: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A thread that is away from its event loop, while something there is ready."""

    key: int
    wait: bytes  # struct wait
    thread_name: bytes | None
    ready: list[dict[str, Any]]  # {fd, ready_ns, …}: as `observe.loop_members` gives them
    state: str | None
    syscall: str | None
    throttled_ns: int | None
    lookups: list[bytes]  # struct lookup: those whose answers it has left unread


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls(Item):
    """Event loops that are not served, and due for a line."""

    stalls: list[Stall]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLookup:
    """A thread of a target's child that was found inside a lookup; the child is not traced."""

    key: int
    parent_pid: int  # the target
    parent_name: str | None
    parent_syscall: str | None
    pid: int
    tid: int
    found_ns: int
    seen_ns: int
    process: dict[str, Any]  # as in the event lines
    thread: dict[str, Any]  # its snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Children(Item):
    """Lookups in children: those that are open, and those that were and are not any more."""

    lookups: list[ChildLookup] = field(default_factory=list)
    ended: list[ChildLookup] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost(Item):
    """Loss counters have moved: totals since the start."""

    totals: Losses


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats(Item):
    """Time for a stats line."""

    counters: Counters
    histograms: Histograms
    agent: dict[str, Any]


_KINDS = (Started, Attached, Gone, Frames, Scan, Stalls, Children, Lost, Stats)
ITEMS: dict[str, type[Item]] = {kind.__name__.lower(): kind for kind in _KINDS}


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in kinds  # a bool is no int


def _list(check: Callable[[Any], bool], size: int | None = None, *, least: int = 0) -> Callable[[Any], bool]:
    def is_list(value: Any) -> bool:  # noqa: ANN401 - any JSON value
        has_size = type(value) is list and size in (None, len(value)) and len(value) >= least
        return has_size and all(map(check, value))

    return is_list


def _dict(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: type(value) is dict and all(map(check, value.values()))


def _is_name(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return [type(part) for part in value] == [str, int, int] and value[0] in {"lookup", "connect"}


def _is_name_list(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return value is None or all(map(_is_name, value))


def _is_address(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    return [type(part) for part in value] in ([str, int, bool], [str, type(None), bool])


_ROW = _list(_is(int), 1 + boundary.HISTOGRAM_BUCKETS)
#: what a field may hold, by its annotation
CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": _is(int),
    "bool": _is(bool),
    "str": _is(str),
    "int | None": _is(int, type(None)),
    "str | None": _is(str, type(None)),
    "bytes": _is(bytes),
    "bytes | None": _is(bytes, type(None)),
    "dict[str, Any]": _is(dict),
    "dict[str, bytes]": _dict(_is(bytes)),
    "dict[str, dict[str, Any]]": _dict(_is(dict)),
    "dict[str, Addresses]": _dict(_list(lambda entry: type(entry) is list and _is_address(entry))),
    "list[bytes]": _list(_is(bytes)),
    "list[str]": _list(_is(str)),
    "list[dict[str, Any]]": _list(_is(dict)),
    "list[OpenCall]": _list(_is(OpenCall)),
    "list[Stall]": _list(_is(Stall)),
    "list[ChildLookup]": _list(_is(ChildLookup)),
    "list[Name] | None": _is_name_list,
    "Losses": _dict(_is(int)),
    "Counts": _dict(_is(int)),
    # Counters are added at the end: a recording from before one was added is as good as ever.
    "Counters": _list(_is(int), least=boundary.Counter.QUERIES_UNANSWERED + 1),
    "Histograms": _list(_ROW, boundary.LATENCIES),
}


def to_json(item: Item) -> dict[str, Any]:
    """The item as JSON values; bytes become {"b64": text}."""
    return {"item": type(item).__name__.lower()} | {
        entry.name: _encoded(getattr(item, entry.name)) for entry in fields(item)
    }


def from_json(values: object) -> Item:
    """The item again. ValueError when these are no values of an item."""
    kind = ITEMS.get(str(values.get("item"))) if isinstance(values, dict) else None
    if not isinstance(values, dict) or kind is None:
        raise ValueError("no such item")
    decoded = {name: _decoded(value) for name, value in values.items() if name != "item"}
    if kind is Scan:
        decoded["calls"] = _each(decoded.get("calls", []), lambda call: _made(OpenCall, call))
        if decoded.get("vanished") is not None:
            decoded["vanished"] = _each(decoded["vanished"], tuple)
    if kind is Children:
        for name in ("lookups", "ended"):
            decoded[name] = _each(decoded.get(name, []), lambda child: _made(ChildLookup, child))
    if kind is Stalls:
        decoded["stalls"] = _each(decoded.get("stalls", []), lambda stall: _made(Stall, stall))
    return _made(kind, decoded)


def _each(values: Any, convert: Callable[[Any], Any]) -> list[Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(values, list) or not all(isinstance(value, (dict, list)) for value in values):
        raise ValueError("no list of entries")
    return [convert(value) for value in values]


def _made(kind: type[Made], values: dict[str, Any]) -> Made:
    """A dataclass from its fields: none more, each of its type; one with a default may be absent.

    So a recording from before a field was added is as good as ever.
    """
    entries = fields(kind)  # type: ignore[arg-type]
    expected = {entry.name: CHECKS[str(entry.type)] for entry in entries}
    needed = {e.name for e in entries if e.default is MISSING and e.default_factory is MISSING}
    if not isinstance(values, dict) or not needed <= values.keys() <= expected.keys():
        raise ValueError(f"not the fields of {kind.__name__}")
    for name, value in values.items():
        if not expected[name](value):
            raise ValueError(f"{kind.__name__}.{name} is of another type")
    return kind(**values)


def _encoded(value: Any) -> Any:  # noqa: ANN401 - any JSON value, and bytes
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, (OpenCall, Stall, ChildLookup)):
        return {entry.name: _encoded(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, (list, tuple)):
        return [_encoded(entry) for entry in value]
    if isinstance(value, dict):
        return {str(name): _encoded(entry) for name, entry in value.items()}
    return value


def _decoded(value: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return base64.b64decode(str(value["b64"]), validate=True)
        return {name: _decoded(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    return value
