"""Goroutines that are inside a name lookup, told from their stacks and what these hold.

Owns: which of Go's functions are the lookup, its work and its questions, and where their arguments lie.
Must not know: how a stack is read, or what a lookup is shown as.

An argument that came in a register has a place in its caller's frame where a function keeps it while it
waits; whether it did is seen from what lies there: a name has its length beside it, and is readable; whoever
works for a lookup holds the very same pointers. What does not fit together is not told.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ebpfdns.model import dns_names
from ebpfdns.observe import go_layouts, query_buffer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.goroutines import Frame, Goroutine, Goroutines

RESOLVER = "net.(*Resolver)."
LOOKUP_IP_ADDR = RESOLVER + "lookupIPAddr"
FLIGHT = RESOLVER + "lookupIPAddr.func1"
ORDER = RESOLVER + "goLookupIPCNAMEOrder"
EXCHANGE = RESOLVER + "exchange"
ROUND_TRIPS = ("net.dnsPacketRoundTrip", "net.dnsStreamRoundTrip")
CGO = frozenset({"net.cgoLookupIP", "net.cgoLookupHost", "net.cgoLookupPTR", "net.cgoLookupCNAME"})
#: What a program calls, and what may be left of that where it was inlined; the outermost is the lookup.
CALLS = frozenset(
    RESOLVER + name
    for name in (
        *(
            "lookupIPAddr",
            "LookupHost",
            "lookupHost",
            "LookupCNAME",
            "lookupCNAME",
            "LookupSRV",
            "goLookupSRV",
        ),
        *("LookupMX", "goLookupMX", "LookupNS", "goLookupNS", "LookupTXT", "goLookupTXT"),
        *("LookupAddr", "lookupAddr", "goLookupPTR", "goLookupHostOrder"),
    )
)
SOCKET_WAITS = frozenset(f"internal/poll.(*FD).{name}" for name in ("Read", "Write", "ReadFrom", "WaitWrite"))
MARKS = CALLS | {FLIGHT, ORDER, EXCHANGE}
QUESTION_BYTES, NAME_BYTES = 260, 255
MAX_SERVER_BYTES, MAX_HOST_BYTES = 64, 253
MAX_FD = 1 << 20
ARCHITECTURE = "amd64"
_SYSFD_AT = 16  # internal/poll.FD: fdmu (state, two semaphores), Sysfd
_SERVER = re.compile(r"\[?([0-9a-fA-F:.%\w]+?)\]?:(\d{1,5})")
_HOST = re.compile(rb"[\w.:%-]+")
_MESSAGE_BYTES = 512


class Question(NamedTuple):
    """One attempt that goes on."""

    name: str  # with its final dot
    type: str
    id: int | None
    server: tuple[str, int] | None
    transport: str | None
    fd: int | None
    context: int | None  # the address of what was passed down to it


class Text(NamedTuple):
    """A string and where it is."""

    address: int
    bytes: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """What one goroutine does for a lookup."""

    goroutine: Goroutine
    calls: tuple[str, ...] = ()  # what a program calls, the outermost last
    hosts: tuple[Text, ...] = ()  # what lies where each keeps its name, the outermost first
    is_flight: bool = False  # works for those who wait for one name
    is_cgo: bool = False
    context: int | None = None  # of the work itself, whose goroutines have it too
    worked_on: Text | None = None
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One lookup in flight."""

    goroutine: Goroutine
    calls: tuple[str, ...]
    host: Text | None
    questions: tuple[Question, ...] = ()
    flight: Goroutine | None = None  # who works for it
    is_cgo: bool = False


def find(program: Goroutines) -> list[Found]:
    """All lookups that goroutines of a process are in."""
    places = [found for name, found in program.program.functions.items() if name in MARKS]
    if not places:
        return []
    lowest = min(found.address for found in places) + program.bias
    highest = max(found.address + found.bytes for found in places) + program.bias
    parts = []
    for one in program.waiting():
        stack = program.stack(one)
        if _has_word(stack, lowest, highest):
            part = part_of(program, one, stack)
            if part is not None and program.at(one.address) == one:
                parts.append(part)
    return together(parts)


def told(found: Found) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "id": found.goroutine.id,
        "call": found.calls[-1].removeprefix("net."),
        "name": None if found.host is None else found.host.bytes.decode("ascii"),
        "questions": [
            {
                "name": question.name,
                "type": question.type,
                "id": question.id,
                "server": None if question.server is None else list(question.server),
                "transport": question.transport,
                "fd": question.fd,
            }
            for question in found.questions
        ],
    }


def together(parts: Sequence[Part]) -> list[Found]:
    """Who waits, each with those who work for it."""
    calls = sorted((part for part in parts if part.calls), key=lambda part: part.goroutine.id)
    work = _Work(parts, calls)
    return [_found(call, work) for call in calls]


class _Work:
    """Who works for whom: a goroutine knows who made it; before Go 1.21 what was passed down tells."""

    def __init__(self, parts: Sequence[Part], calls: Sequence[Part]) -> None:
        self._knows_parents = any(part.goroutine.parent_id is not None for part in parts)
        self._asking: dict[int | None, list[Part]] = defaultdict(list)
        self._flights: dict[int | None, list[Part]] = defaultdict(list)
        for part in parts:
            if part.question and not part.calls:
                by = part.goroutine.parent_id if self._knows_parents else part.question.context
                self._asking[by].append(part)
            if part.is_flight:
                place = part.worked_on.address if part.worked_on else None
                self._flights[part.goroutine.parent_id if self._knows_parents else place].append(part)
        self._contexts = Counter(part.context for part in parts)
        self._first: dict[int, Part] = {}  # who has a string first
        for call in calls:
            if call.hosts:
                self._first.setdefault(call.hosts[0].address, call)

    def flight_of(self, call: Part) -> Part | None:
        """The goroutine that works for this caller; None: it works itself, or waits for another's."""
        if LOOKUP_IP_ADDR not in call.calls:
            return None
        if self._knows_parents:
            return next(iter(self._flights.get(call.goroutine.id, ())), None)
        # The work holds the very string of the one who began it.
        place = call.hosts[0].address if call.hosts else None
        alike = self._flights.get(place, []) if place else []
        return alike[0] if len(alike) == 1 and self._first[place or 0] is call else None

    def asking_for(self, work: Part) -> list[Part]:
        """The goroutines that ask for it."""
        if self._knows_parents:
            return self._asking.get(work.goroutine.id, [])
        is_one = work.context is not None and self._contexts[work.context] == 1
        return self._asking.get(work.context, []) if is_one else []


def _found(call: Part, work: _Work) -> Found:
    flight = work.flight_of(call)
    asking = work.asking_for(flight or call)
    questions = tuple(part.question for part in (call, *asking) if part.question)
    return Found(
        call.goroutine,
        call.calls,
        _host_of(call, flight, questions),
        questions,
        flight.goroutine if flight else None,
        call.is_cgo or (flight is not None and flight.is_cgo),
    )


def _host_of(call: Part, flight: Part | None, questions: Sequence[Question]) -> Text | None:
    """What was asked for, when that is sure: a place may hold what was there before."""
    if questions:
        names = [question.name for question in questions]
        return next((host for host in call.hosts if any(_is_about(name, host) for name in names)), None)
    if LOOKUP_IP_ADDR not in call.calls or not call.hosts:
        return None
    # This one needs it again when its wait is over, so it keeps it; the work has the very same.
    host = call.hosts[0]
    works_on = flight.worked_on if flight else None
    return host if works_on in {None, host} and _HOST.fullmatch(host.bytes) else None


def _is_about(question: str, host: Text) -> bool:
    """Whether this may be asked for a name: as it is, with a suffix, for a service or an address."""
    name = host.bytes.decode("ascii").removesuffix(".").lower()
    with contextlib.suppress(ValueError):
        name = ipaddress.ip_address(name).reverse_pointer
    return f".{name}." in f".{question.lower()}"


def _has_word(stack: bytes, lowest: int, highest: int) -> bool:
    whole = stack[: len(stack) // 8 * 8]
    return any(lowest <= word < highest for (word,) in struct.iter_unpack("=Q", whole))


def part_of(program: Goroutines, one: Goroutine, stack: bytes) -> Part | None:
    """What this goroutine does; None: nothing for a lookup."""
    frames = program.frames(one, stack)
    named = {frame.name: frame for frame in frames}  # of two with one name the outer one
    calls = [frame for frame in frames if frame.name in CALLS]
    is_flight = FLIGHT in named and not calls
    question = _question(program, named) if EXCHANGE in named else None
    if not calls and not is_flight and question is None:
        return None
    order = named.get(ORDER)
    return Part(
        one,
        tuple(frame.name for frame in calls),
        tuple(filter(None, (_string(program, frame, "host", MAX_HOST_BYTES) for frame in reversed(calls)))),
        is_flight,
        not CGO.isdisjoint(named),
        _context(program, order) if order else None,
        _string(program, order, "host", MAX_HOST_BYTES) if order else None,
        question,
    )


def _question(program: Goroutines, named: dict[str, Frame]) -> Question | None:
    """What exchange asks: its question is on the stack, as it has an array."""
    exchange = named[EXCHANGE]
    raw = program.read(exchange.top, QUESTION_BYTES)
    if len(raw) < QUESTION_BYTES or not raw[NAME_BYTES]:
        return None
    name = raw[: raw[NAME_BYTES]]
    number, class_ = struct.unpack_from("=HH", raw, NAME_BYTES + 1)
    if not name.endswith(b".") or class_ != 1 or not name.isascii():
        return None
    told = _string(program, exchange, "server", MAX_SERVER_BYTES)
    trip = next((named[name] for name in ROUND_TRIPS if name in named), None)
    return Question(
        name.decode("ascii"),
        dns_names.type_name(number),
        None if trip is None else _id(program, trip, name, number),
        None if told is None else _server(told.bytes),
        None if trip is None else "udp" if trip.name == ROUND_TRIPS[0] else "tcp",
        _descriptor(program, named),
        _context(program, exchange),
    )


def _id(program: Goroutines, trip: Frame, name: bytes, type_: int) -> int | None:
    """The transaction id, from the message itself, if its place still holds it."""
    address = program.word(trip.top + spill_places(trip.name, program.version)["buffer"])
    raw = program.read(address, _MESSAGE_BYTES) if address else b""
    at = 2 if trip.name == ROUND_TRIPS[1] else 0
    wanted = (name.decode("ascii").lower(), dns_names.type_name(type_))
    for message in query_buffer.find_queries(raw, 0):
        if message.address == at and (message.name.lower(), message.type) == wanted:
            return message.id
    return None


def _descriptor(program: Goroutines, named: dict[str, Frame]) -> int | None:
    """The socket that it waits for, from the poll.FD that the innermost function was called on."""
    frame = next((named[name] for name in named if name in SOCKET_WAITS), None)
    address = None if frame is None else program.word(frame.top)
    number = None if not address else program.word(address + _SYSFD_AT)
    return number if number is not None and number < MAX_FD else None


def _context(program: Goroutines, frame: Frame) -> int | None:
    """The second word of the context: where it is."""
    return program.word(frame.top + spill_places(frame.name, program.version)["ctx"] + 8) or None


def _string(program: Goroutines, frame: Frame, argument: str, limit: int) -> Text | None:
    """A string argument; None when what lies in its place is none."""
    at = spill_places(frame.name, program.version).get(argument)
    raw = b"" if at is None else program.read(frame.top + at, 16)
    if len(raw) < 16:  # noqa: PLR2004 - two words
        return None
    address, size = struct.unpack("=QQ", raw)
    text = program.text(address, size, limit)
    is_printable = text is not None and text.isascii() and text.decode("ascii").isprintable()
    return Text(address, text) if text is not None and is_printable else None


def _server(text: bytes) -> tuple[str, int] | None:
    """Of 192.0.2.1:53 or [2001:db8::1]:53."""
    found = _SERVER.fullmatch(text.decode("ascii"))
    return (found[1], int(found[2])) if found else None


@functools.cache
def spill_places(function: str, version: tuple[int, int]) -> dict[str, int]:
    """Argument → where a function keeps it, above its caller's stack pointer: behind what is on the stack."""
    layout = go_layouts.layout_of(version, ARCHITECTURE)
    if layout is None:
        return {}
    taken, returned = go_layouts.signature_of(function, version)
    at_entry = layout.places[function]
    ends = [value.bytes - at_entry[value.name] for value in (*taken, *returned) if at_entry[value.name] < 0]
    at = _aligned(max(ends, default=go_layouts.STACK_ARGUMENTS_AT) - go_layouts.STACK_ARGUMENTS_AT, 8)
    places = {}
    for value in taken:
        if at_entry[value.name] >= 0:
            places[value.name] = at
            at += 8 * value.registers
    return places


def _aligned(at: int, to: int) -> int:
    return -(-at // to) * to
