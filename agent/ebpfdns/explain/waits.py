"""What a thread, or a goroutine in a lookup, waits for right now, in words.

Owns: the sentence. Must not know: how the snapshot was taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]

STATES = {
    "R": "runs, or waits for a processor",
    "T": "is stopped",
    "t": "is held by a debugger",
    "Z": "has ended",
}


def waits_for(thread: Facts) -> str:
    """One sentence about one thread's snapshot."""
    state, syscall = thread.get("state"), thread.get("syscall")
    if state in STATES:
        return STATES[state]
    if syscall is None:
        return "waits; for what may not be seen" if state else "is gone"
    if syscall == "running":
        return STATES["R"]
    told = [text for text in map(_socket, thread.get("sockets") or ()) if text]
    more = "" if len(told) <= 1 else f" and {len(told) - 1} more"
    return f"waits in {syscall}" + (f" for {told[0]}{more}" if told else "")


def goroutine(found: Facts) -> dict[str, Any]:
    """A goroutine that looks a name up, with a sentence about it."""
    asked = found.get("questions") or ()
    if not asked:
        return {**found, "text": "waits for what another goroutine asks, or is between two questions"}
    asks = ", ".join(_question(question) for question in asked)
    return {**found, "text": f"asks {asks}"}


def _question(question: Facts) -> str:
    server = question.get("server")
    whom = f" of {server[0]} port {server[1]}" if server else ""
    return f"{question['type']} {question['name']}{whom}"


def _socket(waited: Facts) -> str | None:
    """The other end of a socket."""
    remote, peer = waited.get("remote"), waited.get("peer") or {}
    path = peer.get("path") or waited.get("path")
    if remote:
        port = "" if remote[1] is None else f" port {remote[1]}"
        state = f", {waited['state']}" if waited.get("state") in {"SYN_SENT", "CLOSE_WAIT"} else ""
        unread = "; an answer lies there unread" if waited.get("rx_queue_bytes") else ""
        return f"{remote[0]}{port} ({waited.get('kind')}{state}){unread}"
    if path:
        owner = peer.get("owner") or {}
        whose = f" of {owner['name']} (pid {owner['pid']})" if owner.get("name") else ""
        return f"the local socket {path}{whose}"
    return None
