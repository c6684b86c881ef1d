"""Where Go keeps what the probes read: members of structs, arguments and results of its resolver's functions.

Owns: the table of that, by version of Go, and Go's rules of who gets which register.
Must not know: files, probes, or what is done with a value.

Each row holds from its version on, until the next one of the same name. Sources: src/net/dnsclient_unix.go,
lookup.go, lookup_unix.go, cgo_unix.go, net.go; src/runtime/runtime2.go; the rules are those of
src/cmd/compile/abi-internal.md. tests/kernel/test_go_layouts.py compares all of it with the DWARF of binaries
that it builds; by hand that was done with Go 1.19.8, 1.21.13, 1.22.10, 1.23.9, 1.24.11, 1.25.5, 1.26.6 and
1.27.3 (amd64 and arm64). Of 1.20 only sources could be had, and 1.18 is taken to be as 1.19.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

Version = tuple[int, int]
Row = TypeVar("Row")

OLDEST: Version = (1, 18)
NEWEST_CHECKED: Version = (1, 27)
#: Registers for numbers and pointers: RAX RBX RCX RDI RSI R8 R9 R10 R11; R0 to R15.
REGISTERS = {"amd64": 9, "arm64": 16}
WORD_BYTES = 8
#: What is passed on the stack begins so far above the stack pointer, at entry and at RET: behind the return
#: address, or (arm64) behind the place where a function that is called next will save it.
STACK_ARGUMENTS_AT = 8


class Members(NamedTuple):
    """Where members of Go's structs are, in bytes; None: there is none of that name."""

    goid: int  # runtime.g
    parent_goid: int | None  # runtime.g: of the goroutine that made this one
    dns_error_text: int  # net.DNSError.Err; Name and Server follow, then three bools


_MEMBERS: tuple[tuple[Version, Members], ...] = (
    ((1, 18), Members(152, None, 0)),
    ((1, 21), Members(152, 272, 0)),
    ((1, 23), Members(160, 280, 16)),
    ((1, 25), Members(152, 272, 16)),
    ((1, 26), Members(152, 280, 16)),
)

_QUESTION = "question:0:260:2"  # has an array: never in registers
_PARSER = {(1, 18): "parser:0:328:8", (1, 22): "parser:16:80:8"}
_HEADER = {(1, 18): "header:8:12:2", (1, 20): "header:10:14:2"}
#: Function → (since, what it takes -> what it returns). A value is one register, or name:registers, or, where
#: it may be on the stack, name:registers:bytes:alignment (no registers: always on the stack).
_ADDRESSES = "r ctx:2 network:2 host:2 -> addresses:3 error:2"
_RECORDS = "r ctx:2 host:2 -> records:3 error:2"
_NAMED = "r ctx:2 host:2 -> name:2 error:2"
_SERVICE = "r ctx:2 service:2 protocol:2 host:2 -> name:2 records:3 error:2"
_EXCHANGE = f"r ctx:2 server:2 {_QUESTION} timeout tcp"
_ROUND_TRIP = f"connection:2 id {_QUESTION} buffer:3"
SIGNATURES: dict[str, tuple[tuple[Version, str], ...]] = {
    "net.(*Resolver).lookupIPAddr": (((1, 18), _ADDRESSES),),
    "net.(*Resolver).lookupIP": (((1, 18), _ADDRESSES),),
    "net.(*Resolver).LookupHost": (((1, 18), _RECORDS),),
    "net.(*Resolver).lookupHost": (((1, 18), _RECORDS),),
    "net.(*Resolver).LookupAddr": (((1, 18), _RECORDS),),
    "net.(*Resolver).lookupAddr": (((1, 18), _RECORDS),),
    "net.(*Resolver).LookupMX": (((1, 18), _RECORDS),),
    "net.(*Resolver).LookupNS": (((1, 18), _RECORDS),),
    "net.(*Resolver).LookupTXT": (((1, 18), _RECORDS),),
    "net.(*Resolver).LookupCNAME": (((1, 18), _NAMED),),
    "net.(*Resolver).lookupCNAME": (((1, 18), _NAMED),),
    "net.(*Resolver).LookupSRV": (((1, 18), _SERVICE),),
    "net.(*Resolver).goLookupMX": (((1, 18), _RECORDS),),
    "net.(*Resolver).goLookupNS": (((1, 18), _RECORDS),),
    "net.(*Resolver).goLookupTXT": (((1, 18), _RECORDS),),
    "net.(*Resolver).goLookupSRV": (((1, 18), _SERVICE),),
    "net.(*Resolver).goLookupPTR": (
        ((1, 18), _RECORDS),
        ((1, 20), "r ctx:2 host:2 configuration -> records:3 error:2"),
        ((1, 21), "r ctx:2 host:2 order configuration -> records:3 error:2"),
    ),
    "net.(*Resolver).goLookupHostOrder": (
        ((1, 18), "r ctx:2 host:2 order -> records:3 error:2"),
        ((1, 20), "r ctx:2 host:2 order configuration -> records:3 error:2"),
    ),
    "net.(*Resolver).goLookupIPCNAMEOrder": (
        ((1, 18), "r ctx:2 network:2 host:2 order -> addresses:3 name:0:256:1 error:2"),
        ((1, 20), "r ctx:2 network:2 host:2 order configuration -> addresses:3 name:0:256:1 error:2"),
    ),
    "net.(*Resolver).tryOneName": (
        ((1, 18), f"r ctx:2 configuration host:2 type -> {_PARSER[1, 18]} server:2 error:2"),
        ((1, 22), f"r ctx:2 configuration host:2 type -> {_PARSER[1, 22]} server:2 error:2"),
    ),
    "net.(*Resolver).exchange": (
        ((1, 18), f"{_EXCHANGE} -> {_PARSER[1, 18]} {_HEADER[1, 18]} error:2"),
        ((1, 20), f"{_EXCHANGE} ad -> {_PARSER[1, 18]} {_HEADER[1, 20]} error:2"),
        ((1, 22), f"{_EXCHANGE} ad -> {_PARSER[1, 22]} {_HEADER[1, 20]} error:2"),
    ),
    **dict.fromkeys(
        ("net.dnsPacketRoundTrip", "net.dnsStreamRoundTrip"),
        (
            ((1, 18), f"{_ROUND_TRIP} -> {_PARSER[1, 18]} {_HEADER[1, 18]} error:2"),
            ((1, 20), f"{_ROUND_TRIP} -> {_PARSER[1, 18]} {_HEADER[1, 20]} error:2"),
            ((1, 22), f"{_ROUND_TRIP} -> {_PARSER[1, 22]} {_HEADER[1, 20]} error:2"),
        ),
    ),
    "net.cgoLookupIPCNAME": (((1, 18), "network:2 host:2 -> addresses:3 name:2 error:2"),),
    "net.cgoLookupHostIP": (((1, 20), "network:2 host:2 -> addresses:3 error:2"),),
    "net.cgoLookupIP": (
        ((1, 18), "ctx:2 network:2 host:2 -> addresses:3 error:2 completed"),
        ((1, 20), "ctx:2 network:2 host:2 -> addresses:3 error:2"),
    ),
    "net.cgoLookupPTR": (
        ((1, 18), "ctx:2 host:2 -> records:3 error:2 completed"),
        ((1, 20), "ctx:2 host:2 -> records:3 error:2"),
    ),
    "net.cgoLookupCNAME": (
        ((1, 18), "ctx:2 host:2 -> name:2 error:2 completed"),
        ((1, 26), "ctx:2 host:2 -> name:2 error:2"),
    ),
    "net.cgoResSearch": (((1, 20), "host:2 type class -> records:3 error:2"),),
}


class Value(NamedTuple):
    """An argument, or a result."""

    name: str
    registers: int  # 0: never in registers
    bytes: int
    alignment: int


@dataclass(frozen=True, slots=True)
class GoLayout:
    """Where things are in the programs of one version of Go, on one machine."""

    goid_offset: int
    parent_goid_offset: int | None
    dns_error_text_offset: int
    #: function → argument or result → its place: the number of its (first) register, or, negative, how many
    #: bytes above the stack pointer it is, at entry (arguments) and at RET (results).
    places: dict[str, dict[str, int]]
    is_verified: bool  # False: this version of Go is newer than what was looked at

    @property
    def exchange_error(self) -> int | None:
        """The first register of exchange()'s error when it returns; None: it is on the stack."""
        place = self.places["net.(*Resolver).exchange"]["error"]
        return place if place >= 0 else None


@functools.cache
def layout_of(version: Version, architecture: str) -> GoLayout | None:
    """The layout for a version of Go ("amd64", "arm64"); None when it is too old, or on another machine."""
    if version < OLDEST or architecture not in REGISTERS:
        return None
    members = _row(_MEMBERS, version)
    assert members is not None  # noqa: S101 - the table begins with the oldest
    places = {}
    for function, rows in SIGNATURES.items():
        signature = _row(rows, version)
        if signature is not None:
            places[function] = _assigned(signature, REGISTERS[architecture])
    return GoLayout(*members, places, is_verified=version <= NEWEST_CHECKED)


def signature_of(function: str, version: Version) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """What a function takes, and what it returns."""
    signature = _row(SIGNATURES[function], version)
    taken, _, returned = (signature or "").partition("->")
    return tuple(_values(taken)), tuple(_values(returned))


def _row(rows: tuple[tuple[Version, Row], ...], version: Version) -> Row | None:
    """The last row that has begun."""
    begun = [value for since, value in rows if since <= version]
    return begun[-1] if begun else None


def _values(text: str) -> Iterator[Value]:
    for word in text.split():
        name, *numbers = word.split(":")
        registers = int(numbers[0]) if numbers else 1
        size, alignment = map(int, numbers[1:]) if len(numbers) > 1 else (registers * WORD_BYTES, WORD_BYTES)
        yield Value(name, registers, size, alignment)


def _assigned(signature: str, registers: int) -> dict[str, int]:
    """The place of each value: a value goes into registers as a whole, or onto the stack as a whole."""
    places: dict[str, int] = {}
    at = STACK_ARGUMENTS_AT
    for side in signature.split("->"):
        used = 0
        at = _aligned(at, WORD_BYTES)
        for value in _values(side):
            if value.registers and used + value.registers <= registers:
                places[value.name] = used
                used += value.registers
            else:
                at = _aligned(at, value.alignment)
                places[value.name] = -at
                at += value.bytes
    return places


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
