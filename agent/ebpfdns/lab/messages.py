"""DNS messages as the scripted server reads and writes them: bytes in, bytes out.

Owns: reading one question, and making a reply around a verbatim copy of it, so that any bytes survive.
Must not know: rules, sockets, clocks. Pure, and quick: one question needs no general DNS library.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

TYPE_NUMBERS = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "SRV": 33,
    "HTTPS": 65,
}
TYPE_NAMES = {number: name for name, number in TYPE_NUMBERS.items()}
TYPE_A, TYPE_PTR, TYPE_AAAA, TYPE_OPT = 1, 12, 28, 41

HEADER_BYTES = 12
MAX_LABEL_BYTES = 63
FLAG_REPLY, FLAG_TRUNCATED, FLAG_RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0080
COPIED_FLAGS = 0x7900  # opcode and "recursion desired" come back as they were sent
#: The OPT record we send back: root name, type 41, 1232 bytes, no flags, no options.
OPT_RECORD = b"\0" + struct.pack(">HHIH", TYPE_OPT, 1232, 0, 0)
#: A name in an answer points back to the one in the question.
POINTER_TO_QUESTION = struct.pack(">H", 0xC000 | HEADER_BYTES)
PLAIN_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


@dataclass(frozen=True, slots=True)
class Question:
    """The one question of a query, and where it ends in the message."""

    name: str  # lower case, without the final dot, other bytes as \DDD
    type: str
    end: int
    has_opt: bool


def parse_question(message: bytes) -> Question | None:
    """Read a query's question; None when the bytes are no query with exactly one question."""
    if len(message) < HEADER_BYTES:
        return None
    _, flags, questions, _, _, additional = struct.unpack_from(">6H", message)
    if flags & FLAG_REPLY or questions != 1:
        return None
    labels, position = _labels(message, HEADER_BYTES)
    if labels is None or position + 4 > len(message):
        return None
    (number,) = struct.unpack_from(">H", message, position)
    end = position + 4
    has_opt = additional > 0 and message[end : end + 3] == b"\0\0\x29"
    return Question(".".join(map(_text, labels)), TYPE_NAMES.get(number, f"TYPE{number}"), end, has_opt)


def make_reply(
    query: bytes,
    question: Question,
    *,
    rcode: int = 0,
    answers: tuple[str, ...] = (),
    ttl_s: int = 60,
    truncated: bool = False,
) -> bytes:
    """Answer `query`: those of `answers` that fit the question's type, or none of them when `truncated`."""
    identity, asked_flags = struct.unpack_from(">HH", query)
    flags = FLAG_REPLY | FLAG_RECURSION_AVAILABLE | (asked_flags & COPIED_FLAGS) | rcode
    records = [] if truncated else _records(question.type, answers, ttl_s)
    if truncated:
        flags |= FLAG_TRUNCATED
    header = struct.pack(">6H", identity, flags, 1, len(records), 0, int(question.has_opt))
    opt = OPT_RECORD if question.has_opt else b""
    return b"".join([header, query[HEADER_BYTES : question.end], *records, opt])


def with_flipped_id(reply: bytes) -> bytes:
    """The same reply to a transaction nobody started."""
    return bytes((reply[0] ^ 0xFF, reply[1] ^ 0xFF)) + reply[2:]


def with_other_question(reply: bytes) -> bytes:
    """The same reply to a question nobody asked: the first byte of the name is another one."""
    first = HEADER_BYTES + 1
    other = b"y" if reply[first : first + 1] in b"xX" else b"x"  # case makes no difference
    return reply[:first] + other + reply[first + 1 :]


def encode_name(name: str) -> bytes:
    """A dotted name as labels."""
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\0"


def _labels(message: bytes, position: int) -> tuple[list[bytes] | None, int]:
    """The labels from `position` on, and the position behind them; None when one is cut off or compressed."""
    labels: list[bytes] = []
    while position < len(message):
        length = message[position]
        position += 1
        if length == 0:
            return labels, position
        if length > MAX_LABEL_BYTES or position + length > len(message):
            return None, position
        labels.append(message[position : position + length])
        position += length
    return None, position


def _text(label: bytes) -> str:
    """A label for people and for matching: lower case, unusual bytes by number."""
    lowered = label.lower()
    if PLAIN_BYTES.issuperset(lowered):
        return lowered.decode("ascii")
    return "".join(chr(byte) if byte in PLAIN_BYTES else f"\\{byte:03d}" for byte in lowered)


def _records(asked: str, answers: tuple[str, ...], ttl_s: int) -> list[bytes]:
    """Resource records for the answers of the asked type: addresses for A and AAAA, names for PTR."""
    number = TYPE_NUMBERS.get(asked, 0)
    data = [packed for answer in answers if (packed := _record_data(number, answer)) is not None]
    heads = [POINTER_TO_QUESTION + struct.pack(">HHIH", number, 1, ttl_s, len(packed)) for packed in data]
    return [head + packed for head, packed in zip(heads, data, strict=True)]


def _record_data(number: int, answer: str) -> bytes | None:
    """The data of one record; None when this answer is of another type."""
    try:
        address = ipaddress.ip_address(answer)
    except ValueError:
        return encode_name(answer) if number == TYPE_PTR else None
    fits = (number == TYPE_A and address.version == 4) or (number == TYPE_AAAA and address.version == 6)  # noqa: PLR2004
    return address.packed if fits else None
