"""Looks at processes for the scans: prepared before anything is stuck, and shared by all that is stuck.

Owns: when pyroute2 is loaded, how long looking may take in one scan, what of one scan is read only once.
Must not know: what is due, or what a snapshot holds.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ebpfdns import netlink
from ebpfdns.observe import resolv_conf, snapshot, unix_peers
from ebpfdns.observe.cgroup_cpu import CpuWatch
from ebpfdns.observe.process_snapshot import process_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

Facts = dict[str, Any]

#: Processes of one scan: the later ones go without, and get theirs with their next line.
BUDGET_S = 0.04
#: A look is good for so many times as long as it took: the first few of a storm are told of a scan earlier.
GOOD_FOR = 4
#: Loading began when something was half as old as stuck is, so mostly nobody waits.
LOAD_WAIT_S = 0.15


class Looks:
    """`alive_tid` maps a pid to a thread of it that is alive; `daemons` names those that are followed."""

    def __init__(self, alive_tid: Callable[[int], int], daemons: Callable[[], Iterable[int]] = tuple) -> None:
        self._alive_tid = alive_tid
        self._daemons = daemons
        self._cpu = CpuWatch()
        self._processes: dict[int, Facts] = {}
        self._good_until_s: dict[int, float] = {}
        self.begin()

    def begin(self) -> None:
        """A new scan: nothing has been looked at yet, but for what took long to see, a moment ago."""
        now_s = time.monotonic()
        self._left_s = BUDGET_S
        self._stacks_left = snapshot.MAX_STACKS
        self._confs: dict[int, Facts] = {}
        self._peers: dict[int, unix_peers.Peers] = {}
        self._good_until_s = {pid: until_s for pid, until_s in self._good_until_s.items() if until_s > now_s}
        self._processes = {pid: self._processes[pid] for pid in self._good_until_s}

    def prepare(self, pids: Iterable[int]) -> None:
        """Something of these processes may soon be stuck."""
        for pid in pids:
            netlink.load_beside()
            self._cpu.keep_fresh(self._alive_tid(pid))

    def resolv_conf(self, pid: int) -> Facts:
        """What the process would read there now."""
        if pid not in self._confs:
            self._confs[pid] = dict(resolv_conf.resolv_conf(self._alive_tid(pid)))
        return self._confs[pid]

    def process(self, pid: int) -> Facts | None:
        """Its snapshot; None when there is no time left for it in this scan."""
        if pid not in self._processes and self._left_s > 0:
            netlink.load_beside().join(LOAD_WAIT_S)
            began_s = time.monotonic()
            nameservers = self.resolv_conf(pid)["nameservers"]
            alive_tid = self._alive_tid(pid)
            self._processes[pid] = process_snapshot(
                pid, alive_tid, self._cpu, nameservers, peers=self._peers_of(pid)
            )
            ended_s = time.monotonic()
            self._left_s -= ended_s - began_s
            self._good_until_s[pid] = ended_s + GOOD_FOR * (ended_s - began_s)
        return self._processes.get(pid)

    def threads(
        self, pid: int, tids: Iterable[int], asking: Container[int] | None = None
    ) -> dict[str, Facts]:
        """Tid → snapshot of a thread; `asking`: those whose question is looked for, None: all."""
        found = snapshot.thread_snapshots(
            pid, tids, asking=asking, peers=self._peers_of(pid), max_stacks=self._stacks_left
        )
        self._stacks_left = max(0, self._stacks_left - len(found))
        return {str(tid): facts for tid, facts in found.items()}

    def _peers_of(self, pid: int) -> unix_peers.Peers:
        if pid not in self._peers:
            self._peers[pid] = unix_peers.Peers(self._alive_tid(pid), self._daemons())
        return self._peers[pid]
