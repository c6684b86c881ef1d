"""What surrounds a lookup or connect at the moment when its cause is asked for.

Owns: putting a `Situation` together from the look that was taken and from what is remembered.
Must not know: when one is wanted (`pipeline`), or what follows from it (`diagnose`). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.correlate import chains
from ebpfdns.correlate.tracker import name_of
from ebpfdns.model.facts import Connect, Lookup, Sibling, Situation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.correlate import items
    from ebpfdns.correlate.behind import Behind
    from ebpfdns.correlate.last_words import LastWords
    from ebpfdns.correlate.losses import LossBook
    from ebpfdns.model.facts import Hop, Other, Wait
    from ebpfdns.publish.surroundings import Surroundings


class Situations:
    """Of one pipeline, whose memory it reads. `redact` changes names as those of the lookups were changed."""

    def __init__(
        self,
        around: Surroundings,
        losses: LossBook,
        last: LastWords,
        behind: Behind,
        redact: Callable[[Lookup], Lookup],
    ) -> None:
        self._around = around
        self._losses = losses
        self._last = last
        self._behind = behind
        self._redact = redact

    def of(
        self,
        item: items.Item,
        thing: Lookup | Connect,
        scan: items.Scan | None = None,
        wait: Wait | None = None,
    ) -> Situation:
        """What surrounds it; `scan`: the look that was taken at it while it is open."""
        pid = str(thing.pid)
        coverage = self._around.coverage(thing.pid)
        return Situation(
            now_ns=item.now_ns,
            lookup=thing if isinstance(thing, Lookup) else None,
            connect=thing if isinstance(thing, Connect) else None,
            thread=scan.threads.get(str(thing.tid)) if scan else None,
            resolv_conf=self._around.resolv_conf(thing.pid),
            now_wall_ns=item.wall_ns,
            process_started_wall_ns=self._around.started_wall_ns(thing.pid),
            answers=self._around.answers(thing.host_pid),
            process=scan.processes.get(pid) if scan else None,
            others=self._last.others(thing.pid, name_of(thing)),
            first_of_name=self._first_of_name(thing),
            siblings=_siblings(scan, thing) if scan else (),
            wait=wait,
            chain=self._chain(thing, scan) if scan else (),
            stub_settings=self._around.stub_settings(),
            queues=scan.queues.get(pid, {}) if scan else {},
            libc_calls=scan.libc_calls.get(pid) if scan else None,
            resolver=self.resolver(thing),
            wire=bool(coverage.get("wire", True)),
            lost=self._losses.hiding_since(thing.start_ns),
            missing=tuple(coverage.get("missing", ())),
        )

    def _chain(self, thing: Lookup | Connect, scan: items.Scan) -> tuple[Hop, ...]:
        """Who is behind the one that is asked, as far as that was looked at."""
        if not isinstance(thing, Lookup) or not scan.daemons:
            return ()
        process, thread = scan.processes.get(str(thing.pid)), scan.threads.get(str(thing.tid))
        around = chains.Around(scan.now_ns, scan.daemons, process, thread, self._behind.past, self._redact)
        return chains.chain_of(thing, around)

    def resolver(self, thing: Lookup | Connect) -> str:
        """Whose code resolves."""
        if isinstance(thing, Lookup) and thing.is_of_unknown_code:
            return "unknown"
        if isinstance(thing, Lookup) and thing.api == "go":
            return "go"
        return self._around.resolver(thing.pid)

    def _first_of_name(self, thing: Lookup | Connect) -> Other | None:
        if not isinstance(thing, Lookup) or not thing.is_of_go or thing.name is None:
            return None
        return self._last.first_of_text(thing.pid, thing.name, name_of(thing))


def _siblings(scan: items.Scan, thing: Lookup | Connect) -> tuple[Sibling, ...]:
    return tuple(Sibling(*entry) for entry in scan.siblings.get(str(thing.key), ()))
