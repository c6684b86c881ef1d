"""DNS names and numbers: wire form to presentation form, types and rcodes to their names.

Owns: the escaping of RFC 1035 section 5.1 and the registries' names. Must not know: packets beyond a name.
"""

from __future__ import annotations

import re
from functools import lru_cache

TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR",
    41: "OPT", 43: "DS", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 255: "ANY", 257: "CAA",
}  # fmt: skip
RCODES = {
    0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 6: "YXDOMAIN",
    7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE",
}  # fmt: skip
SPECIAL = b'".;\\()@$'
POINTER = 0xC0
#: what nearly all labels are made of, so that their bytes need not be looked at one by one
PLAIN = re.compile(rb"[A-Za-z0-9_-]+").fullmatch


@lru_cache(maxsize=4096)
def presentation(wire: bytes) -> bytes | None:
    r"""A name in wire form (labels with a length each, ended by a zero) as `www.example.` with a final dot.

    Bytes that are special or not printable become `\.` or `\DDD`. None when they are no whole, plain name.
    """
    labels: list[bytes] = []
    at = 0
    while at < len(wire):
        size = wire[at]
        if size == 0:
            return b".".join([*labels, b""]) if labels else b"."
        if size & POINTER or at + 1 + size > len(wire):
            return None
        label = wire[at + 1 : at + 1 + size]
        labels.append(label if PLAIN(label) else b"".join(map(_escaped, label)))
        at += 1 + size
    return None


def from_text(name: bytes) -> bytes:
    """A name whose labels are separated by dots, as `presentation` writes it."""
    return b".".join(label if PLAIN(label) else b"".join(map(_escaped, label)) for label in name.split(b"."))


def _escaped(byte: int) -> bytes:
    if byte in SPECIAL:
        return bytes((0x5C, byte))
    if 0x21 <= byte <= 0x7E:  # noqa: PLR2004 - the printable ones without space
        return bytes((byte,))
    return b"\\%03d" % byte


def type_name(number: int) -> str:
    """A, AAAA, …; TYPE123 for one without a name here (RFC 3597)."""
    return TYPES.get(number, f"TYPE{number}")


def rcode_name(number: int) -> str:
    """NOERROR, SERVFAIL, …; RCODE11 for one without a name."""
    return RCODES.get(number, f"RCODE{number}")


def same(one: bytes | None, other: bytes | None) -> bool:
    """Whether two names are equal, but for case and a final dot."""
    if one is None or other is None:
        return False
    return one.lower().rstrip(b".") == other.lower().rstrip(b".")
