"""Which program goes to which function of Go's resolver, and what it is told about that version of Go.

Owns: the table of Go's functions, and the cookie of bpf/events.h that goes with each place.
Must not know: how functions are found (`go_program`), or how a probe is attached (`kernel`).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ebpfdns.model import boundary
from ebpfdns.model.boundary import GoFunctionKind

if TYPE_CHECKING:
    from ebpfdns.observe.go_layouts import GoLayout
    from ebpfdns.observe.go_program import GoProgram

#: what is a lookup to its caller: of each line the first function that is there, for others may be inlined
LOOKUPS = (
    (GoFunctionKind.LOOKUP_IP_ADDR, ("lookupIPAddr",)),
    (GoFunctionKind.LOOKUP_HOST, ("lookupHost", "LookupHost")),
    (GoFunctionKind.LOOKUP_CNAME, ("lookupCNAME", "LookupCNAME")),
    (GoFunctionKind.LOOKUP_SRV, ("lookupSRV", "LookupSRV", "goLookupSRV")),
    (GoFunctionKind.LOOKUP_RECORDS, ("lookupMX", "LookupMX", "goLookupMX")),
    (GoFunctionKind.LOOKUP_RECORDS, ("lookupNS", "LookupNS", "goLookupNS")),
    (GoFunctionKind.LOOKUP_RECORDS, ("lookupTXT", "LookupTXT", "goLookupTXT")),
    (GoFunctionKind.LOOKUP_RECORDS, ("lookupAddr", "LookupAddr", "goLookupPTR")),
)
RESOLVER = "net.(*Resolver)."
#: what cgo makes of calls into C, the name first among their arguments
LIBC_CALLS = (
    "net._C2func_getaddrinfo",
    "net._C2func_getnameinfo",
    "net._C2func_res_search",
    "net._Cfunc_res_search",
)
#: kind → (functions, program at entry, program at each return)
WORKERS = (
    (
        GoFunctionKind.FLIGHT,
        ("net.(*Resolver).goLookupIPCNAMEOrder", "net.cgoLookupIP"),
        "go_flight_begins",
        None,
    ),
    (GoFunctionKind.EXCHANGE, ("net.(*Resolver).exchange",), "go_exchange_begins", "go_exchange_ends"),
    (GoFunctionKind.ROUND_TRIP, ("net.dnsPacketRoundTrip",), "go_round_trip_begins", None),
    (GoFunctionKind.STREAM_ROUND_TRIP, ("net.dnsStreamRoundTrip",), "go_round_trip_begins", None),
    (GoFunctionKind.CALL_LIBC, LIBC_CALLS, "go_calls_libc", None),
)
#: all programs at Go functions
FUNCTIONS = (
    *("go_lookup_begins", "go_lookup_ends", "go_flight_begins"),
    *("go_exchange_begins", "go_exchange_ends", "go_round_trip_begins", "go_calls_libc"),
)
NEEDED = "net.(*Resolver).lookupIPAddr"

#: of a cookie: the error is not in a register
NO_REGISTER = 31


#: How nearly all of Go's functions begin on amd64: the stack pointer, or where it will be, is compared with
#: the goroutine's limit, below which more stack is made and everything begins again. Then comes `push %rbp`,
#: which the kernel does by itself; what stands before it would have to step through, at ten times the cost.
STACK_CHECK = re.compile(
    rb"(?:\x4c\x8d\x64\x24.|\x4c\x8d\xa4\x24.{4})?"  # lea -frame(%rsp), %r12
    rb"[\x49\x4d]\x3b\x66\x10"  # cmp 16(%r14), %rsp or %r12
    rb"(?:\x76.|\x0f\x86.{4})(?=\x55)",  # jbe
    re.DOTALL,
).match
STACK_CHECK_BYTES = 32


def begin_of(code: bytes) -> int:
    """How far into a function its probe belongs: behind the look at the stack; all arguments are as given."""
    found = STACK_CHECK(code)
    return found.end() if found else 0


@dataclass(frozen=True, slots=True)
class Places:
    """Where one program is attached: file offsets, and the cookie of each."""

    function: str
    offsets: list[int] = field(default_factory=list)
    cookies: list[int] = field(default_factory=list)


def places(program: GoProgram) -> list[Places]:
    """All places, those at returns first: what begins in between is not seen, instead of open for ever."""
    layout = program.layout
    if layout is None or NEEDED not in program.functions:
        return []
    ends: dict[str, Places] = {}
    begins: dict[str, Places] = {}

    def add(name: str, kind: GoFunctionKind, at_entry: str, at_return: str | None) -> None:
        found = program.functions.get(name)
        if found is None:
            return
        number = cookie(layout, kind)
        entries = begins.setdefault(at_entry, Places(at_entry))
        entries.offsets.append(found.entry + begin_of(os.pread(fd, STACK_CHECK_BYTES, found.entry)))
        entries.cookies.append(number)
        if at_return is not None:
            returns = ends.setdefault(at_return, Places(at_return))
            returns.offsets.extend(found.returns)
            returns.cookies.extend([number] * len(found.returns))

    fd = os.open(program.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for name, lookup_kind in lookup_kinds(program).items():
            add(name, lookup_kind, "go_lookup_begins", "go_lookup_ends")
        for kind, functions, at_entry, at_return in WORKERS:
            for name in functions:
                add(name, kind, at_entry, at_return)
    finally:
        os.close(fd)
    return [entry for entry in (*ends.values(), *begins.values()) if entry.offsets]


def lookup_kinds(program: GoProgram) -> dict[str, GoFunctionKind]:
    """The functions whose calls are lookups, of those that this program has."""
    found: dict[str, GoFunctionKind] = {}
    for kind, names in LOOKUPS:
        present = [RESOLVER + name for name in names if RESOLVER + name in program.functions]
        found |= dict.fromkeys(present[:1], kind)
    return found


def cookie(layout: GoLayout, kind: GoFunctionKind) -> int:
    """What the program in the kernel is told at a place."""
    error = layout.exchange_error
    return (
        int(kind)
        | layout.goid_offset << boundary.GO_COOKIE_ID
        | (layout.parent_goid_offset or 0) << boundary.GO_COOKIE_PARENT
        | layout.dns_error_text_offset << boundary.GO_COOKIE_TEXT
        | (NO_REGISTER if error is None else error) << boundary.GO_COOKIE_ERROR
    )
