"""A thread that waits at the socket of a local daemon: which one, and what the daemon does instead.

Owns: finding the daemon behind a unix socket, the facts that prove it stuck, and the words for them.
Must not know: which daemon has which cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.cause import Evidence
from ebpfdns.diagnose.wording import milliseconds, shown_text

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers

NOT_WORKING = {
    "T": "is stopped by a signal",
    "t": "is held by a debugger",
    "D": "is blocked in the kernel",
    "Z": "has ended and is not collected",
}
STOPPED = ("T", "t")


@dataclass(frozen=True, slots=True)
class Daemon:
    """Who is behind a local socket; None where that was not told."""

    pid: int | None
    name: str | None
    state: str | None
    syscall: str | None

    @property
    def text(self) -> str:
        """As a sentence names it, whoever it is on this host."""
        return f"{shown_text(self.name or 'the daemon')}{f' (process {self.pid})' if self.pid else ''}"


@dataclass(frozen=True, slots=True)
class Waited:
    """The local socket that a thread waits at."""

    path: str
    fd: int | None
    syscall: str | None
    backlog: int | None
    unread_bytes: int | None
    daemon: Daemon | None


def daemon_of(owner: Mapping[str, Any] | None) -> Daemon | None:
    """The owner of a socket, as a snapshot tells it."""
    if not owner:
        return None
    return Daemon(owner.get("pid"), owner.get("name"), owner.get("state"), owner.get("syscall"))


def same_path(path: str) -> str:
    """One spelling for each path: /var/run is /run."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def waited_at(case: LookupCase, paths: Container[str]) -> Waited | None:
    """The socket among `paths` that its thread waits at; None: at none of them, or that was not seen."""
    thread = case.thread
    if thread is None or thread.is_running or case.situation.thread is None:
        return None
    of_process = {facts.get("inode"): facts for facts in (case.situation.process or {}).get("sockets") or ()}
    for facts in case.situation.thread.get("sockets") or ():
        told = of_process.get(facts.get("inode"), {})
        peer = facts.get("peer") or told.get("peer") or {}
        path = peer.get("path") or facts.get("path") or told.get("path")
        if path and same_path(path) in paths:
            return Waited(
                path,
                facts.get("fd"),
                thread.syscall,
                peer.get("listener_backlog"),
                peer.get("rx_queue_bytes"),
                daemon_of(peer.get("owner")),
            )
    return None


def owed_by_none(case: LookupCase) -> bool:
    """Whether no DNS server owes it an answer: it asked none, or is past those it asked."""
    return not any(map(case.is_open_question, case.sent))


def served_by(waited: Waited, usual: str) -> str:
    """Who is waited for: the daemon that is usual there, and the process that it is."""
    daemon = waited.daemon
    if daemon is None or daemon.name is None:
        return usual
    name, pid = shown_text(daemon.name), f", process {daemon.pid}" if daemon.pid else ""
    return f"{usual} ({name}{pid})"


def waits_there(case: LookupCase, waited: Waited) -> Evidence:
    """The thread waits at this socket."""
    text = f"the thread waits in {waited.syscall or 'a call'} for {shown_text(waited.path)}"
    numbers: Numbers = {
        "path": shown_text(waited.path),
        "fd": waited.fd,
        "elapsed_ms": milliseconds(case.elapsed_ns),
    }
    return Evidence("unix_peer_waited_for", text, numbers)


def proofs(waited: Waited) -> list[Evidence]:
    """Facts that each prove the daemon stuck, and not busy with our question."""
    found = [] if waited.daemon is None else not_working(waited.daemon)
    if waited.backlog:
        plural = "s wait" if waited.backlog > 1 else " waits"
        text = f"{waited.backlog} connection{plural} at {shown_text(waited.path)} to be accepted"
        found.append(Evidence("listener_backlog_full", text, {"backlog": waited.backlog}))
    if waited.unread_bytes:
        text = f"what was sent to {shown_text(waited.path)} lies there unread"
        found.append(Evidence("peer_rx_queue_not_empty", text, {"rx_queue_bytes": waited.unread_bytes}))
    return found


def not_working(daemon: Daemon) -> list[Evidence]:
    """That its process cannot work, if so."""
    if daemon.state not in NOT_WORKING:
        return []
    numbers: Numbers = {"pid": daemon.pid, "state": daemon.state}
    return [Evidence("peer_stopped", f"{daemon.text} {NOT_WORKING[daemon.state]}", numbers)]


def not_proved(waited: Waited) -> Evidence:
    """What was missing to be sure."""
    if waited.daemon is None:
        return Evidence("probe_missing", f"not seen: who serves {shown_text(waited.path)}, and what it does")
    text = f"not seen: what {waited.daemon.text} waits for itself"
    return Evidence("probe_missing", text, {"pid": waited.daemon.pid, "syscall": waited.daemon.syscall})


def asked_nobody(case: LookupCase) -> Evidence:
    """No DNS server was asked so far."""
    text = f"in {case.lasted(case.elapsed_ns)} no question to a DNS server was seen"
    return Evidence("query_sent", text, {"elapsed_ms": milliseconds(case.elapsed_ns), "queries": 0})


def release(waited: Waited, service: str) -> str:
    """The command that sets the daemon going again."""
    daemon = waited.daemon
    if daemon is not None and daemon.state in STOPPED and daemon.pid:
        return f"Try: kill -CONT {daemon.pid}, or systemctl restart {service}"
    return f"Try: systemctl restart {service}"
