"""What every line says beside its own matter: host, process, thread, container.

Owns: what is known of the traced processes, as they were announced. Must not know: lookups beyond their pid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ebpfdns.model.facts import Connect, Lookup
from ebpfdns.publish import events
from ebpfdns.publish.lines import printable, wall_ns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ebpfdns.correlate.items import Attached, Item
    from ebpfdns.publish.events import Event


REMEMBERED_CHILDREN = 1024


class Surroundings:
    """The host and its traced processes."""

    def __init__(self, host: str = "") -> None:
        self.host = host
        self._targets: dict[int, Attached] = {}
        self._renamed: set[int] = set()  # they run another program now, which has not been looked at
        self._daemons: dict[int, Attached] = {}  # followed, and no targets
        self._children: dict[int, dict[str, Any]] = {}  # not traced, and yet told of
        self._resolv_confs: dict[int, dict[str, Any]] = {}
        self._go: dict[int, dict[str, Any]] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._targets)

    def add(self, target: Attached) -> bool:
        """Know a process from now on; whether it was known before."""
        is_known = target.pid in self._targets
        self._targets[target.pid] = target
        self._renamed.discard(target.pid)
        self._go[target.pid] = target.go
        return is_known

    def execed(self, pid: int) -> None:
        """It runs another program now: which one is known when it is announced again, if it lives so long."""
        target = self._targets.get(pid)
        if target is not None and target.is_foretold:
            self._targets[pid] = replace(target, is_foretold=False)
        elif target is not None:
            self._renamed.add(pid)
            self._go.pop(pid, None)

    def remove(self, pid: int) -> Attached | None:
        """Forget a process; what was known of it."""
        self._resolv_confs.pop(pid, None)
        self._renamed.discard(pid)
        self._go.pop(pid, None)
        return self._targets.pop(pid, None)

    def know_daemon(self, daemon: Attached) -> None:
        """A process that is followed, for targets ask it."""
        self._daemons[daemon.pid] = daemon

    def forget_daemon(self, pid: int) -> Attached | None:
        """It is not followed any more; what was known of it."""
        return self._daemons.pop(pid, None)

    def process_of(self, pid: int) -> Event | None:
        """`process` of a target, or of a daemon that is followed."""
        known = self._daemons.get(pid) or self._targets.get(pid)
        return known.process if known else None

    def stub_settings(self) -> dict[str, Any]:
        """Of the systemd-resolved that is followed; nothing when there is none, or more than one."""
        found = [daemon.settings for daemon in self._daemons.values() if daemon.settings]
        return found[0] if len(found) == 1 else {}

    def serves(self, address: str) -> Attached | None:
        """The followed daemon that answers at a local address; None: nobody known, or several say so."""
        found = [daemon for daemon in self._daemons.values() if address in daemon.serves]
        return found[0] if len(found) == 1 else None

    def know_child(self, pid: int, process: dict[str, Any]) -> None:
        """A process that is not traced, but whose parent is."""
        self._children[pid] = process
        if len(self._children) > REMEMBERED_CHILDREN:
            self._children.pop(next(iter(self._children)))

    def coverage(self, pid: int) -> dict[str, Any]:
        """What can be seen of a process; nothing for one that is not known."""
        target = self._targets.get(pid)
        return target.coverage if target else {}

    def resolver(self, pid: int) -> str:
        """Whose code resolves for a process."""
        target = self._targets.get(pid)
        return target.resolver if target else "unknown"

    def started_wall_ns(self, pid: int) -> int | None:
        """When a process began, by the wall clock."""
        target = self._targets.get(pid)
        text = target.process.get("start_time") if target else None
        return None if text is None else wall_ns(text)

    def configured(self, confs: Mapping[str, dict[str, Any]], answers: Mapping[str, dict[str, Any]]) -> None:
        """What the resolv.conf of some processes says now, and what their servers have answered."""
        self._resolv_confs |= {int(pid): conf for pid, conf in confs.items()}
        if answers:
            self._answers = dict(answers)

    def decides_go(self, found: Mapping[str, dict[str, Any]]) -> None:
        """What decides now which of Go's resolvers some processes take."""
        self._go |= {int(pid): facts for pid, facts in found.items() if int(pid) in self._targets}

    def go(self, pid: int) -> dict[str, Any]:
        """The same of one process; nothing when Go did not build it."""
        return self._go.get(pid, {})

    def answers(self, host_pid: int) -> dict[str, dict[str, Any]]:
        """By address, as last read: when a server answered this process with and without EDNS."""
        told = ((key.split(" ", 1), times) for key, times in self._answers.items())
        return {address: times for (pid, address), times in told if pid == str(host_pid)}

    def resolv_conf(self, pid: int) -> dict[str, Any] | None:
        """As it was last read; None: it was not."""
        return self._resolv_confs.get(pid)

    def line(self, kind: str, item: Item, message: str) -> Event:
        """A line about the agent as a whole."""
        return events.base(kind, item.wall_ns, self.host, message)

    def line_of_target(self, item: Item, target: Attached, status: str, message: str) -> Event:
        """A line about a process itself."""
        found = self.line("target", item, message) | {"process": target.process} | target.around
        role = {} if target.role == "target" else {"role": target.role}
        return found | {"target": {"status": status, **role, "coverage": target.coverage}}

    def line_about(self, kind: str, item: Item, thing: Lookup | Connect, message: str) -> Event:
        """A line about something that a thread of a process does."""
        found = self.line_of_thread(kind, item, (thing.pid, thing.tid, thing.comm), message)
        if isinstance(thing, Lookup) and thing.is_wire:
            found.pop("thread", None)
        return found

    def line_of_thread(self, kind: str, item: Item, who: tuple[int, int, bytes], message: str) -> Event:
        """A line about a thread; `who`: its process, its own number, its name."""
        pid, tid, name = who
        found = self.line(kind, item, message)
        target = self._targets.get(pid)
        # One that was gone before it could be looked at: its first thread has its program's name (15 bytes).
        program = printable(name) if name and tid == pid else None
        unknown = {"pid": pid, "executable": {"name": program, "path": None}, "start_time": None}
        found["process"] = target.process if target else self._children.get(pid, unknown)
        if target and pid in self._renamed:
            found["process"] = target.process | {"executable": unknown["executable"]}
        if tid:  # 0: which thread began it is not known
            found["thread"] = {"id": tid, "name": printable(name) if name else None}
        return found | (target.around if target else {})
