"""What was last said of each open thing, found by its name and by its process.

Owns: that memory. Must not know: how a cause is found, or when it is told.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ebpfdns.model.facts import Lookup, Other

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ebpfdns.correlate.tracker import Name
    from ebpfdns.diagnose.cause import Cause
    from ebpfdns.model.facts import Connect, Hop

#: Other lookups that a rule looks at: of a storm, those that were told of first.
MAX_OTHERS = 16


class Told(NamedTuple):
    """What was last said of an open thing."""

    id: str
    thing: Lookup | Connect
    cause: Cause
    chain: tuple[Hop, ...] = ()


class LastWords:
    """One `Told` for each thing that was told of as open and whose end was not."""

    def __init__(self) -> None:
        self._pids: dict[Name, int] = {}
        self._by_pid: dict[int, dict[Name, Told]] = {}
        #: the first of each process, in the order of their starts: the same for all later ones of a storm
        self._first: dict[int, tuple[Other, ...]] = {}
        self._first_names: dict[int, frozenset[Name]] = {}
        self._by_text: dict[tuple[int, bytes], dict[Name, None]] = {}  # lookups, by what was asked for

    def keep(self, name: Name, told: Told) -> None:
        """This is the latest word."""
        pid = told.thing.pid
        self._pids[name] = pid
        of_process = self._by_pid.setdefault(pid, {})
        of_process[name] = told
        if len(of_process) <= MAX_OTHERS or name in self._first_names.get(pid, ()):
            self._first.pop(pid, None)
        text = _text(told.thing)
        if text is not None:
            self._by_text.setdefault((pid, text), {})[name] = None

    def take(self, name: Name) -> Told | None:
        """The latest word, which is forgotten now; None when nothing was told."""
        pid = self._pids.pop(name, None)
        if pid is None:
            return None
        of_process = self._by_pid[pid]
        told = of_process.pop(name)
        self._first.pop(pid, None)
        if not of_process:
            del self._by_pid[pid]
            self._first_names.pop(pid, None)
        text = _text(told.thing)
        of_text = None if text is None else self._by_text.get((pid, text))
        if text is not None and of_text is not None:
            of_text.pop(name, None)
            if not of_text:
                del self._by_text[pid, text]
        return told

    def of(self, name: Name) -> Told | None:
        """The latest word, which is kept."""
        pid = self._pids.get(name)
        return None if pid is None else self._by_pid[pid].get(name)

    def others(self, pid: int, name: Name) -> tuple[Other, ...]:
        """The first lookups of one process that were told of and are open, but for this one."""
        of_process = self._by_pid.get(pid)
        if of_process is None:
            return ()
        if pid not in self._first:
            told = list(islice(of_process.items(), MAX_OTHERS))
            self._first_names[pid] = frozenset(other for other, _ in told)
            self._first[pid] = _oldest_first(words for _, words in told)
        if name not in self._first_names[pid]:
            return self._first[pid]
        told = list(islice(of_process.items(), MAX_OTHERS + 1))
        return _oldest_first(words for other, words in told if other != name)

    def first_of_text(self, pid: int, text: bytes, name: Name) -> Other | None:
        """Of a process's lookups that asked for the same, the one that was told of first; not this one."""
        first = next(iter(self._by_text.get((pid, text), ())), None)
        if first is None or first == name:
            return None
        return _oldest_first([self._by_pid[pid][first]])[0]


def _text(thing: Lookup | Connect) -> bytes | None:
    """What a lookup asked for; connects have a text of another kind."""
    return thing.name if isinstance(thing, Lookup) else None


def _oldest_first(told: Iterable[Told]) -> tuple[Other, ...]:
    found = [
        Other(words.id, words.thing, words.cause.id, words.cause.summary)
        for words in told
        if isinstance(words.thing, Lookup)
    ]
    return tuple(sorted(found, key=lambda other: other.lookup.start_ns))
