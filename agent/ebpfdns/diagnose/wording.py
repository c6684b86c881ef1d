"""How a diagnosis writes: names, times, servers, and commands that are safe to paste.

Owns: the text of names from outside (printable ASCII only), and the quoting of them in a remedy.
Must not know: any rule, or what a line looks like.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.model.facts import Lookup, Server

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

ERRNO_NAMES = {
    1: "EPERM", 13: "EACCES", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE", 101: "ENETUNREACH",
    104: "ECONNRESET", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH",
}  # fmt: skip

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def shown(raw: bytes) -> str:
    r"""Bytes from outside as printable ASCII: the rest becomes `\xNN`, a backslash two."""
    return "".join(map(_SHOWN.__getitem__, raw))


def _shown_byte(byte: int) -> str:
    if byte == 0x5C:  # noqa: PLR2004 - the backslash
        return r"\\"
    return chr(byte) if 0x20 <= byte <= 0x7E else f"\\x{byte:02x}"  # noqa: PLR2004 - printable ASCII


_SHOWN = tuple(map(_shown_byte, range(256)))


def shown_text(text: str) -> str:
    """`shown` for text that was made of something from outside, such as a path."""
    return shown(text.encode("utf-8", "backslashreplace"))


def milliseconds(duration_ns: int) -> float:
    """As every `_ms` number has it."""
    return round(duration_ns / NS_PER_MS, 3)


def seconds(duration_ns: int) -> str:
    """A duration as a person says it: 4.0 s, 12 ms, 0.3 ms."""
    if duration_ns >= NS_PER_S / 10:
        return f"{duration_ns / NS_PER_S:.1f} s"
    duration_ms = duration_ns / NS_PER_MS
    return f"{duration_ms:.0f} ms" if duration_ms >= 1 else f"{duration_ms:.1f} ms"


def times(count: int) -> str:
    """Once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def errno_name(number: int) -> str:
    """ECONNREFUSED, …; errno 5 for one without a name here."""
    return ERRNO_NAMES.get(number, f"errno {number}")


def server_text(server: Server) -> str:
    """The address, with its port unless that is DNS's own."""
    return server.address if server.port == 53 else server.text  # noqa: PLR2004 - DNS


def listing(words: Iterable[str]) -> str:
    """The words as "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def subject(lookup: Lookup) -> str:
    """What the program asked for, to be put in a sentence."""
    if lookup.name is not None:
        return shown(lookup.name)
    return shown_text(lookup.address) if lookup.address else "a name that could not be read"


def dig(server: Server, lookup: Lookup, options: str = "+time=2 +tries=1") -> str:
    """The command that asks this server the same question."""
    port = "" if server.port == 53 else f" -p {server.port}"  # noqa: PLR2004 - DNS
    return f"dig {options} @{_quoted(server.address)}{port} {_asked(lookup)}"


def _asked(lookup: Lookup) -> str:
    """The name as an argument of dig; never an option, a server, or something that a shell runs."""
    if lookup.name is None:
        return f"-x {_quoted(lookup.address)}" if lookup.address else "NAME"
    name = shown(lookup.name)
    return name if _PLAIN_NAME.fullmatch(name) else f"-q {shlex.quote(name)}"


def _quoted(text: str) -> str:
    return shlex.quote(shown_text(text))
