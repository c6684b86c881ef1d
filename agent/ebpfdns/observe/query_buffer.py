"""The question a blocked resolver waits for, read from the messages on its stack.

Owns: recognising DNS queries in memory, and which of them is the one under way.
Must not know: how the memory and the frames were read; pids.

Stacks keep what earlier calls left: a query of the lookup before may still be there, whole. So a message
counts only when it lies in a frame that has not returned, above the function that sends, and a word in that
function's part of the stack points to it. Messages that ask for different names prove nothing.

musl's frames cannot be told apart. There the proof is that musl itself, not the program, has called poll.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.model import dns_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ebpfdns.observe.user_stack import Frame, Stack

HEADER_BYTES = 12
MAX_NAME_BYTES = 255
#: Recursion desired and nothing else but AD, one question, no answers, at most one additional record.
_QUERY = re.compile(rb"(?=\x01[\x00\x20]\x00\x01\x00\x00\x00\x00\x00([\x00\x01]))", re.DOTALL)
_QUESTION_END = struct.Struct("!HH")
_CLASS_IN = 1
#: musl: the frame of the function that sends, and those of the ones that make the messages.
MAX_SENDER_BYTES, MAX_RESOLVER_BYTES = 2 << 10, 16 << 10
DNS_PORT = 53
_SERVER_V4 = re.compile(rb"\x02\x00\x00\x35([\x01-\xff].{3})\x00{8}", re.DOTALL)
_SERVER_V6 = re.compile(rb"\x0a\x00\x00\x35\x00{4}(.{16})\x00{4}", re.DOTALL)
_OPT_START = b"\0\0\x29"
_WORD = struct.Struct("<Q")
#: glibc's functions that send and wait (2.26 and later; before). Not exported before 2.34.
_SENDERS = frozenset({"__res_context_send", "__libc_res_nsend", "__res_nsend", "res_nsend"})
#: … and that make the messages, in their own frame, and wait only in the former.
_MAKERS = frozenset({"__res_context_query", "__libc_res_nquery"})
#: The same of musl, in a program that has it linked in with its symbols; and where a shared musl lies.
_MUSL_SENDERS = frozenset({"__res_msend_rc", "__res_msend"})
_MUSL_PATH = re.compile(r"/(ld-musl-[^/]+\.so\.1|libc\.musl-[^/]+\.so\.1|libc\.so)$")


@dataclass(frozen=True, slots=True)
class Message:
    """One query, somewhere in memory."""

    address: int
    id: int
    name: str  # www.example.com. with a final dot, special bytes escaped
    type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What a thread waits for: one name, asked for by one or two messages in the order of their addresses."""

    name: str  # on the wire: with the search domain, if one was tried
    types: tuple[str, ...]
    ids: tuple[int, ...]
    messages: tuple[Message, ...]


def asked(stack: Stack, frames: Sequence[Frame]) -> Asked | None:
    """What the thread with this stack asks for; None when it sends nothing, or its messages do not agree."""
    start = _senders_end(frames)
    if start is not None:
        inner, outer = stack.memory[: start - stack.start], stack.memory[start - stack.start :]
        return agreed(pointed_to(find_queries(outer, start), inner))
    if _waits_in_musl(frames):
        start = frames[-1].sp
        # Where the sending function's own frame ends is not known: any live word may point to a message.
        outer = stack.memory[start - stack.start :]
        return agreed(pointed_to(find_queries(outer, start), stack.memory))
    return None


def _senders_end(frames: Sequence[Frame]) -> int | None:
    """Where the frames of the callers of glibc's sending function begin; None when it is not among them."""
    for index, frame in enumerate(frames[1:], start=1):
        if frame.symbol in _MAKERS:
            return frame.sp
        if frame.symbol in _SENDERS and index + 1 < len(frames):
            return frames[index + 1].sp
    return None


def _waits_in_musl(frames: Sequence[Frame]) -> bool:
    """Whether musl itself called poll: it does so to wait for answers, and for nothing else."""
    if [frame.symbol for frame in frames[1:-1]] != ["poll"] or frames[-1].module != frames[1].module:
        return False
    caller = frames[-1]
    return caller.symbol in _MUSL_SENDERS or _MUSL_PATH.search(caller.module or "") is not None


def asked_at_the_end(stack: Stack) -> Asked | None:
    """The same where not even the caller of poll can be told (a stripped static musl program).

    It proves the question only of a thread whose stack ends with addresses of DNS servers (`servers_near`)
    and that waits for an unconnected UDP socket: musl's resolver has them in the frame that calls poll.
    """
    memory = stack.memory[:MAX_RESOLVER_BYTES]
    return agreed(pointed_to(find_queries(memory, stack.start), memory))


def servers_near(stack: Stack) -> list[list[object]]:
    """[address, port] of the DNS servers whose addresses lie in the innermost frames: musl's."""
    return find_servers(stack.memory[:MAX_SENDER_BYTES])


def find_servers(memory: bytes) -> list[list[object]]:
    """[address, port] of every sockaddr_in or sockaddr_in6 in these bytes that has DNS's port."""
    found = [str(ipaddress.IPv4Address(match[1])) for match in _SERVER_V4.finditer(memory)]
    for match in _SERVER_V6.finditer(memory):
        address = ipaddress.IPv6Address(match[1])
        found.append(str(address.ipv4_mapped or address))
    return [[address, DNS_PORT] for address in dict.fromkeys(found)]


def find_queries(memory: bytes, start: int) -> list[Message]:
    """Every well-formed query in these bytes, which begin at address `start`."""
    found = (_message(memory, match.start() - 2, start) for match in _QUERY.finditer(memory))
    return [message for message in found if message is not None]


def pointed_to(messages: Sequence[Message], memory: bytes) -> list[Message]:
    """Those of them to whose first byte a word in this memory points."""
    words = {word for (word,) in _WORD.iter_unpack(memory[: len(memory) // _WORD.size * _WORD.size])}
    return [message for message in messages if message.address in words]


def agreed(messages: Sequence[Message]) -> Asked | None:
    """What they ask for together; None when there are none, or they ask for different names."""
    if not messages or len({message.name.lower() for message in messages}) > 1:
        return None
    types, ids = tuple(message.type for message in messages), tuple(message.id for message in messages)
    return Asked(messages[0].name, types, ids, tuple(messages))


def _message(memory: bytes, at: int, start: int) -> Message | None:
    """The query at this place; None when it is none."""
    if at < 0:
        return None
    name_at = at + HEADER_BYTES
    name_bytes = _name_bytes(memory, name_at)
    question_end = name_at + name_bytes + _QUESTION_END.size
    if name_bytes <= 1 or question_end > len(memory):
        return None
    number, kind = _QUESTION_END.unpack_from(memory, name_at + name_bytes)
    has_additional = memory[at + 11] == 1
    if kind != _CLASS_IN or number not in dns_names.TYPES:
        return None
    if has_additional and not memory.startswith(_OPT_START, question_end):
        return None
    name = dns_names.presentation(memory[name_at : name_at + name_bytes])
    if name is None:
        return None
    id_ = int.from_bytes(memory[at : at + 2], "big")
    size = question_end - at
    return Message(start + at, id_, name.decode("ascii"), dns_names.type_name(number), size)


def _name_bytes(memory: bytes, at: int) -> int:
    """How long the name in wire form is; 0 when it is none."""
    size = 0
    while size < MAX_NAME_BYTES and at + size < len(memory):
        label = memory[at + size]
        if label & dns_names.POINTER:
            return 0
        size += 1 + label
        if label == 0:
            return size
    return 0
