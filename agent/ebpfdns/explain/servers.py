"""Each nameserver: the way to it, and, for one on loopback, who listens there. No packet is sent to find out.

Owns: the sentence about each. Must not know: whether it answers.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from ebpfdns.explain.schedule import MAX_SERVERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]


def servers(facts: Facts) -> list[dict[str, Any]]:
    """[{address, asked, route, listener, text}] of all nameserver lines; glibc and musl ask three of them."""
    routes, listeners = facts.get("routes") or {}, facts.get("listeners") or {}
    named = (facts.get("resolv_conf") or {}).get("nameservers") or []
    return [
        {
            "address": address,
            "asked": number < MAX_SERVERS or facts.get("resolver") == "go",
            "route": routes.get(address),
            "listener": _listener(listeners.get(address)),
            "text": _text(routes.get(address), listeners.get(address)),
        }
        for number, address in enumerate(named)
    ]


def _listener(found: Facts | None) -> dict[str, Any] | None:
    if found is None:
        return None
    owner = found.get("owner") or {}
    return {
        "listening": bool(found.get("listening")),
        "owner": {"pid": owner.get("pid"), "name": owner.get("name")} if owner else None,
    }


def _text(route: Facts | None, listener: Facts | None) -> str:
    if listener is not None:
        return _who_listens(listener)
    return "the way to it was not looked up" if route is None else _way(route)


def _who_listens(listener: Facts) -> str:
    owner = listener.get("owner") or {}
    if not listener.get("listening"):
        return "nobody listens there"
    if owner.get("name"):
        return f"{owner['name']} (pid {owner.get('pid')}) listens there"
    return "somebody listens there"


def _way(route: Facts) -> str:
    error = route.get("error")
    if error:
        return f"no way to it ({errno.errorcode.get(error, error)}: {os.strerror(error)})"
    if route.get("kind") in {"unreachable", "blackhole", "prohibit"}:
        return f"no way to it: a route of kind {route['kind']}"
    if route.get("kind") is None:
        return "the way to it is not known"
    via = f" via {route['gateway']}" if route.get("gateway") else ""
    return f"reached by {route.get('device') or 'an unnamed device'}{via}"
