"""What the demo says about each of the agent's lines, in words for somebody who has never seen one.

Owns: the sentences, and the memory of what was seen so that the last one can sum it up.
Must not know: processes, sandboxes, the terminal. Pure: event lines in, sentences out.

Every sentence rests on fields of the line, never on its `message`; a field that is absent is not mentioned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Line = Mapping[str, Any]

#: kind of line about something stuck → kind of the line that closes it, and the object that both carry.
CLOSED_BY = {"lookup_stuck": ("lookup", "lookup"), "connect_stuck": ("connect", "connect")}


@dataclass(slots=True)
class Seen:
    """The lines of one demo, as far as its end asks about them."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def of(self, event: str) -> list[Line]:
        """All lines of one kind, in order."""
        return [line for line in self.lines if line.get("event") == event]

    def closing(self, stuck: Line) -> Line | None:
        """The line that ends what this line said was stuck."""
        kind, key = CLOSED_BY[str(stuck["event"])]
        same = (line for line in self.of(kind) if _at(line, key, "id") == _at(stuck, key, "id"))
        return next(same, None)


def before(line: Line) -> list[str]:
    """What to say before this line is shown; its own message where the kind is not one of a demo's."""
    tell = TELLERS.get(str(line.get("event")))
    return tell(line) if tell else [str(line["message"])] if "message" in line else []


def result(answer: Line | None) -> str:
    """What the program itself got to know."""
    if answer is None:
        return "What the program itself got: nothing at all, it was still waiting when it was stopped."
    lookup_ms = answer.get("lookup_ms")
    got = ", ".join(dict.fromkeys(answer["addresses"])) if answer.get("ok") else str(answer.get("error"))
    sentence = f"What the program itself got: {got}, {_duration(lookup_ms)} after it had asked."
    return f"{sentence} That error has many causes." if answer.get("error") == "EAI_AGAIN" else sentence


def ending(seen: Seen, expected_cause: str | None) -> str:
    """One sentence about the whole."""
    stuck = (seen.of("lookup_stuck") or seen.of("connect_stuck"))[:1]
    if not stuck:
        return _quick_ending(seen, expected_cause)
    what = CLOSED_BY[str(stuck[0]["event"])][1]
    closing = seen.closing(stuck[0])
    sentence = (
        f"In short: the {what} was reported {_duration(_at(stuck[0], what, 'elapsed_ms'))} after it began"
    )
    duration_ms = _at(closing, what, "duration_ms")
    if duration_ms is not None:
        sentence += f", not only when it ended at {_duration(duration_ms)}"
    said = _last_cause(seen, expected_cause)
    return f"{sentence}; {_comparison(said, expected_cause)}"


def shortfall(seen: Seen, *, gets_stuck: bool) -> str | None:
    """What the agent ought to have reported here and did not; None when all is as it should be."""
    if not gets_stuck:
        return None if seen.of("lookup") else "the agent reported no lookup at all"
    stuck = seen.of("lookup_stuck") or seen.of("connect_stuck")
    if not stuck:
        return "the agent did not report the stuck call"
    return None if seen.closing(stuck[0]) else "the agent never said how the stuck call ended"


# One function per kind of line.


def _target(line: Line) -> list[str]:
    """A process starts or stops being traced."""
    if _at(line, "target", "role") == "supporting":
        name = _at(line, "process", "executable", "name") or "a daemon"
        is_begin = _at(line, "target", "status") == "attached"
        return [f"The agent {'follows' if is_begin else 'no longer follows'} {name}, which the program asks."]
    if _at(line, "target", "status") != "attached":
        return ["The program is gone, so there is nothing left to trace."]
    coverage = _at(line, "target", "coverage") or {}
    missing = coverage.get("missing") or []
    found = f"it found {coverage['libc']} in it" if coverage.get("libc") else "it found no libc in it"
    rest = f"; it says what it cannot see: {'; '.join(map(str, missing))}" if missing else ""
    return [f"The agent has attached to the program: {found}{rest}."]


def _lookup_stuck(line: Line) -> list[str]:
    """A lookup is in flight for too long."""
    name, age = _at(line, "lookup", "name"), _duration(_at(line, "lookup", "elapsed_ms"))
    if _at(line, "lookup", "update") in (1, None):
        goroutine = _at(line, "lookup", "goroutine", "id")
        who = "The program waits" if goroutine is None else f"Its goroutine {goroutine} waits"
        said = f"{who}: its lookup of {name} has not come back for {age}. The agent says why:"
        return [said, *_cause(line)]
    return [f"It still waits, after {age}. The agent says so each time the age has doubled:", *_cause(line)]


def _lookup(line: Line) -> list[str]:
    """A lookup has ended."""
    name, took = _at(line, "lookup", "name"), _duration(_at(line, "lookup", "duration_ms"))
    how = {
        "ok": "it worked",
        "failed": f"it failed with {_at(line, 'lookup', 'error', 'type') or 'an error'}",
        "abandoned": "nobody waits for it any more",
    }.get(str(_at(line, "lookup", "status")), "how is not known")
    return [f"The lookup of {name} has ended after {took}: {how}.", *_cause(line)]


def _connect_stuck(line: Line) -> list[str]:
    """A connect is in flight for too long."""
    age = _duration(_at(line, "connect", "elapsed_ms"))
    looked_up = _at(line, "connect", "lookup", "name")
    origin = f", an address that the lookup of {looked_up} gave" if looked_up else ""
    said = f"The program waits for a connection to {_server(line)}{origin}; it has for {age}:"
    return [said, *_cause(line)]


def _connect(line: Line) -> list[str]:
    """A connect has ended."""
    took, status = _duration(_at(line, "connect", "duration_ms")), _at(line, "connect", "status")
    error = _at(line, "connect", "error", "type")
    how = f"{status}, {error}" if error else str(status)
    return [f"The connect to {_server(line)} has ended after {took}: {how}."]


def _event_loop_stall(line: Line) -> list[str]:
    """A thread does not come back to its event loop."""
    away, syscall = _duration(_at(line, "event_loop", "away_ms")), _at(line, "event_loop", "doing", "syscall")
    held_up = _at(line, "event_loop", "lookup", "name")
    what = f"the answer for {held_up} waits there" if held_up else "something waits there"
    doing = f"it sits in {syscall}" if syscall else "it does something else"
    return [f"The program's thread has not come back to its event loop for {away}; {what}, and {doing}."]


def _stats(line: Line) -> list[str]:
    """The agent's own counters."""
    cpu_ms = _at(line, "stats", "agent", "cpu_ms")
    cost = f" It has used {_duration(cpu_ms)} of CPU time, its start included." if cpu_ms is not None else ""
    return [f"The agent's last line: what it has counted, and what it has lost.{cost}"]


def _lost(line: Line) -> list[str]:
    """Something was dropped."""
    count, where = _at(line, "lost", "count"), _at(line, "lost", "where")
    return [f"The agent has lost {count} records ({where}), and says so:"]


TELLERS: dict[str, Callable[[Line], list[str]]] = {
    "target": _target,
    "lookup_stuck": _lookup_stuck,
    "lookup": _lookup,
    "connect_stuck": _connect_stuck,
    "connect": _connect,
    "event_loop_stall": _event_loop_stall,
    "stats": _stats,
    "lost": _lost,
}


# Pieces of sentences.


def _cause(line: Line) -> list[str]:
    """The cause and the remedy, a sentence each; nothing where the line has no cause."""
    cause = line.get("cause")
    if not cause:
        return []
    sentences = [f"  cause:  {cause.get('summary')} ({cause.get('id')}, {cause.get('confidence')})"]
    return sentences + ([f"  remedy: {cause['remedy']}"] if cause.get("remedy") else [])


def _server(line: Line) -> str:
    """Whom a connect goes to."""
    port = _at(line, "connect", "server", "port")
    address = str(_at(line, "connect", "server", "address"))
    return f"{address} port {port}" if port is not None else address


def _quick_ending(seen: Seen, expected_cause: str | None) -> str:
    """The last sentence of a demo in which nothing gets stuck."""
    ended = seen.of("lookup")[-1:]
    if not ended:
        return "In short: the agent reported no lookup."
    took, status = _duration(_at(ended[0], "lookup", "duration_ms")), _at(ended[0], "lookup", "status")
    sentence = f"In short: nothing got stuck, the lookup ended ({status}) after {took}"
    return f"{sentence}; {_comparison(_last_cause(seen, expected_cause), expected_cause)}"


def _comparison(said: str | None, expected: str | None) -> str:
    """What the agent concluded beside what was really wrong."""
    if expected is None:
        return f"nothing was wrong, yet the agent said {said}." if said else "nothing was wrong with DNS."
    if said == expected:
        return f"its cause was {expected}, and that is what the agent said."
    return f"its cause was {expected}; the agent said {said or 'nothing about a cause'}."


def _last_cause(seen: Seen, expected: str | None) -> str | None:
    """The id of the cause that was named in the end: of several lookups, of the one the fault is about."""
    in_the_end = [_at(line, "cause", "id") for line in (*seen.of("lookup"), *seen.of("connect"))]
    if expected in in_the_end:
        return expected
    named = [line["cause"]["id"] for line in seen.lines if _at(line, "cause", "id")]
    return str(named[-1]) if named else None


def _duration(value_ms: float | None) -> str:
    """Milliseconds as a person says them."""
    if value_ms is None:
        return "an unknown time"
    return f"{value_ms / 1000:.1f} s" if value_ms >= 100 else f"{value_ms:.1f} ms"  # noqa: PLR2004 - taste


def _at(line: Line | None, *path: str) -> Any:  # noqa: ANN401 - whatever the line holds there
    """The value at a path of keys; None where any of them is absent or null."""
    value: Any = line
    for key in path:
        value = value.get(key) if value else None
    return value
