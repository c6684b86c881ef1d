"""What the snapshot of a thread says: its state, the call it sits in, the sockets it waits for.

Owns: reading the plain values of a snapshot, of which any may be missing.
Must not know: lookups, rules, or how a snapshot is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.model.facts import Server

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNNING = "running"
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket that the thread waits for; None where that was not told."""

    fd: int | None
    kind: str | None
    state: str | None
    remote: Server | None
    rx_queue_bytes: int | None
    tx_queue_bytes: int | None
    retransmits: int | None
    path: str | None

    @property
    def is_dns(self) -> bool:
        """Whether its other end is a DNS server."""
        return self.remote is not None and self.remote.port == DNS_PORT


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread at one moment."""

    state: str | None = None
    syscall: str | None = None
    sockets: tuple[Socket, ...] = ()

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, or is being traced by a debugger that holds it."""
        return self.state in ("T", "t")

    @property
    def is_running(self) -> bool:
        """Whether it is on a processor, or wants to be."""
        return self.state == "R" or self.syscall == RUNNING


def thread_of(snapshot: Mapping[str, Any] | None) -> Thread | None:
    """The snapshot's values; None without a snapshot, and of a thread that is gone."""
    if snapshot is None or (snapshot.get("state") is None and snapshot.get("syscall") is None):
        return None
    sockets = tuple(_socket(facts) for facts in snapshot.get("sockets") or ())
    return Thread(snapshot.get("state"), snapshot.get("syscall"), sockets)


def _socket(facts: Mapping[str, Any]) -> Socket:
    remote = facts.get("remote")
    return Socket(
        fd=facts.get("fd"),
        kind=facts.get("kind"),
        state=facts.get("state"),
        remote=Server(remote[0], remote[1]) if remote else None,
        rx_queue_bytes=facts.get("rx_queue_bytes"),
        tx_queue_bytes=facts.get("tx_queue_bytes"),
        retransmits=facts.get("retransmits"),
        path=facts.get("path") or (facts.get("peer") or {}).get("path"),
    )
