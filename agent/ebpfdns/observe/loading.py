"""The programs of a variant on their way into the kernel: in threads beside whatever else a start has to do.

Owns: the descriptors of loaded programs, and which are loaded ahead. Must not know: where they are attached.

The verifier takes most of a start. The system call leaves the interpreter to others, so two programs are
verified while this process imports the rest of itself.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ebpfdns.observe import bpf_calls, probes, programs

if TYPE_CHECKING:
    from collections.abc import Iterable

LOADERS = 2
#: What the verifier takes longest for: these are begun with.
LONGEST_FIRST = ("socket_closes", "packet_leaves", "packet_arrives", "call_returns", "loop_is_back")


class Loading:
    """Loads each function once. `by_link`: those at library calls are attached by links."""

    def __init__(self, plan: programs.Compiled, map_fds: dict[str, int], *, by_link: bool) -> None:
        self._plan = plan
        self._map_fds = map_fds
        self._by_link = by_link
        self._pool = ThreadPoolExecutor(max_workers=LOADERS)
        self._begun: dict[str, Future[int]] = {}

    def begin(self, functions: Iterable[str]) -> None:
        """Load these soon; what goes wrong is told when one of them is asked for."""
        known = [function for function in functions if function in self._plan.functions]
        for function in sorted(known, key=_turn):
            if function not in self._begun:
                self._begun[function] = self._pool.submit(self._load, function)

    def fd(self, function: str) -> int:
        """The descriptor of a function's program, once it is loaded. OSError when the kernel refuses it."""
        if function not in self._begun:
            self._begun[function] = self._pool.submit(self._load, function)
        return self._begun[function].result()

    def fds(self) -> list[int]:
        """Of all that are loaded by now."""
        return [
            load.result()
            for load in self._begun.values()
            if load.done() and not load.cancelled() and load.exception() is None
        ]

    def close(self) -> list[int]:
        """Load no more; the descriptors that are still to be closed."""
        self._pool.shutdown(cancel_futures=True)
        return self.fds()

    def _load(self, function: str) -> int:
        kind, attach_type = probes.program_kind(function, by_link=self._by_link)
        code = programs.relocated(self._plan, function, self._map_fds)
        return bpf_calls.load_program(kind, attach_type, function, code, self._plan.licence)


def _turn(function: str) -> int:
    with contextlib.suppress(ValueError):
        return LONGEST_FIRST.index(function)
    return len(LONGEST_FIRST)
