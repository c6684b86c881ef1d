"""Names that must not leave: hashed before anything else can see them (`--redact-names`).

Owns: what counts as a name, and its hash. Must not know: lines, causes, where the key comes from.
One name has one hash in any case, with or without its final dot, so that lines can still be joined.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from typing import TypeVar

from ebpfdns.model.facts import Connect, Lookup

Thing = TypeVar("Thing", Lookup, Connect, Lookup | Connect)

HASH_DIGITS = 16
_HASH = re.compile(rb"redacted-[0-9a-f]{%d}" % HASH_DIGITS).fullmatch


def redacted(thing: Thing, key: str | None) -> Thing:
    """The same with its names hashed, the address of a reverse lookup too; without a key, as it is."""
    if key is None:
        return thing
    if isinstance(thing, Connect):
        return replace(thing, lookup_name=_hashed(thing.lookup_name, key))
    queries = tuple(replace(query, name=_hashed(query.name, key)) for query in thing.queries)
    address = None if thing.address is None else _hash(thing.address.encode(), key).decode()
    return replace(thing, name=_hashed(thing.name, key), address=address, queries=queries)


def is_redacted(name: bytes) -> bool:
    """Whether a name is a hash."""
    return _HASH(name) is not None


def _hashed(name: bytes | None, key: str) -> bytes | None:
    """Once: what was said of it before, and is said again, is a hash already."""
    return name if not name or _HASH(name) else _hash(name, key)


def _hash(name: bytes, key: str) -> bytes:
    plain = name.lower().rstrip(b".")
    return b"redacted-" + hmac.new(key.encode(), plain, hashlib.sha256).hexdigest()[:HASH_DIGITS].encode()
