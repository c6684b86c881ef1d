"""Pieces of text for people, from pieces of events: ages, addresses, waits.

Owns: how each is said, and that nothing in it can harm a terminal.
Must not know: blocks, colours, which event it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.publish.lines import printable

if TYPE_CHECKING:
    from ebpfdns.publish.events import Event

MS_PER_S = 1000
MS_PER_MINUTE = 60_000


def clean(text: object) -> str:
    """Text that does a terminal no harm: a recording, which anyone can have written, holds anything."""
    if text is None:
        return ""
    found = text if isinstance(text, str) else str(text)
    return found if found.isprintable() else printable(found.encode("utf-8", "surrogatepass"))


def age(ms: float) -> str:
    """0.3 ms, 42 ms, 1.5 s, 2 min 5 s: as people say it."""
    if ms < 1:
        return f"{ms:.1f} ms"
    if ms < MS_PER_S / 10:
        return f"{ms:.0f} ms"
    if ms < MS_PER_MINUTE:
        return f"{ms / MS_PER_S:.1f} s"
    minutes, rest_ms = divmod(int(ms), MS_PER_MINUTE)
    return f"{minutes} min {rest_ms // MS_PER_S} s"


def amount(count: Any) -> str:  # noqa: ANN401 - any number of an event
    """A number, or that it is not known."""
    return "?" if count is None else str(count)


def address(server: Event | None) -> str:
    """ADDRESS:PORT; an IPv6 address in brackets."""
    if not server:
        return ""
    host = clean(server.get("address"))
    return f"[{host}]:{server.get('port')}" if ":" in host else f"{host}:{server.get('port')}"


def connect_target(connect: Event) -> str:
    """A connect by where it goes."""
    verb = "TLS handshake with" if connect.get("phase") == "tls" else "connect to"
    where = address(connect.get("server")) or clean(connect.get("path")) or "an unnamed socket"
    return f"{verb} {where}"


def waits(waiting: Event) -> str:
    """What a thread sits in."""
    parts = [f"in {clean(waiting.get('syscall'))}"]
    if waiting.get("since_ms") is not None:
        parts.append(f"for {age(waiting['since_ms'])}")
    found = waiting.get("socket") or {}
    if found:
        peer = address(found.get("server"))
        parts.append(f"on descriptor {found.get('fd')}" + (f" to {peer}" if peer else ""))
        if found.get("rx_queue_bytes") is not None:
            parts.append(f"with {found['rx_queue_bytes']} bytes unread")
    return " ".join(parts)
