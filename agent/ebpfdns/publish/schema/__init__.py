"""The JSON Schema of the event lines (draft 2020-12), version 1: the contract, readable by a machine.

Owns: which kinds there are, what every line has, and what each kind carries.
Must not know: how an event is made; this is the promise, `events.py` keeps it.

Every field has a description: `ebpfdns schema | grep`, or docs/events.md, says what it means.
"""

from __future__ import annotations

import importlib
from typing import Any

from ebpfdns.publish.schema import agent, connect, lookup, participants, verdict
from ebpfdns.publish.schema.terms import Schema, choice, constant, record, ref, text

#: kind → when such a line is written.
KINDS = {
    "target": "A process starts or stops being traced.",
    "lookup_stuck": "A lookup has been in flight for `--stuck-after`; again each time its age doubles.",
    "lookup": "A lookup ended: it was stuck, slow or failed (or any, with `--all`).",
    "connect_stuck": "A connect has been in flight for `--stuck-after`; again each time its age doubles.",
    "connect": "A connect ended: stuck, slow or failed (or any, with `--all`).",
    "event_loop_stall": "A thread that serves an event loop did not come back to it for `--stuck-after`, "
    "while something was ready.",
    "stats": "Every `--stats-every`, and at the end.",
    "lost": "Something was dropped, anywhere between kernel and output.",
}


def schema() -> Schema:
    """The whole schema: every line has a kind, and every kind has exactly its fields."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:ebpfdns:event:1",
        "title": "ebpfdns event line, version 1",
        "description": "One JSON object per line. What was not observed is null or absent, never guessed.",
        "type": "object",
        "properties": {"event": choice("The kind of line.", KINDS)},
        "required": ["event"],
        "allOf": [_when(kind) for kind in KINDS],
        "$defs": _kinds() | _shapes(),
    }


def _when(kind: str) -> Schema:
    """If a line is of this kind, it has this shape."""
    is_kind = {"properties": {"event": {"const": kind}}, "required": ["event"]}
    return {"if": is_kind, "then": ref(kind, KINDS[kind])}


def _kinds() -> dict[str, Schema]:
    """The shape of each kind of line."""
    thread = ref("thread", "The thread that serves the event loop.")
    cause = {"cause": ref("cause", "Why it takes so long, as far as can be told.")}
    chain = {"chain": ref("chain", "What is behind the server that was asked.")}
    return {
        "target": _line("target", {"target": agent.target()}),
        "lookup_stuck": _line("lookup_stuck", {"lookup": lookup.in_flight(), **cause, **chain}),
        "lookup": _line("lookup", {"lookup": lookup.ended(), **chain}, optional=cause),
        "connect_stuck": _line("connect_stuck", {"connect": connect.in_flight(), **cause}),
        "connect": _line("connect", {"connect": connect.ended()}, optional=cause),
        "event_loop_stall": _line("event_loop_stall", {"thread": thread, "event_loop": agent.event_loop()}),
        "stats": _line("stats", {"stats": agent.stats()}, of_agent=True),
        "lost": _line("lost", {"lost": agent.lost()}, of_agent=True),
    }


def _line(
    kind: str,
    carries: dict[str, Schema],
    *,
    optional: dict[str, Schema] | None = None,
    of_agent: bool = False,
) -> Schema:
    """A line: what every line has, then what this kind carries."""
    required: dict[str, Schema] = {
        "v": constant(1, "Version of this contract; another number means other names."),
        "ts": participants.timestamp("When the thing was observed."),
        "event": constant(kind, KINDS[kind]),
        "message": text("One sentence for a person in a log viewer; never the only place of a fact."),
        "host": record("The machine the agent runs on.", {"name": text("Its host name.")}),
    }
    may: dict[str, Schema] = {"k8s": ref("k8s", "Where that is in Kubernetes, when known.")}
    if not of_agent:
        required["process"] = ref("process", "The process that the line is about.")
        may |= {
            "thread": ref("thread", "The thread that waits; absent where none can be named."),
            "container": ref("container", "The container of the process, when known."),
        }
    may = {name: shape for name, shape in (may | (optional or {})).items() if name not in carries}
    return record(KINDS[kind], required | carries, may)


def _shapes() -> dict[str, Schema]:
    """The objects that appear in more than one place."""
    return {
        "process": participants.process(),
        "thread": participants.thread(),
        "container": participants.container(),
        "k8s": participants.k8s(),
        "query": lookup.query(),
        "waiting_on": lookup.waiting_on(),
        "cause": verdict.cause(_cause_ids()),
        "chain": verdict.chain(),
        "hop": verdict.hop(),
        "hop_process": participants.hop_process(),
        "hop_connect": connect.of_hop(),
        "histogram": agent.histogram(),
    }


def _cause_ids() -> tuple[str, ...]:
    """The ids of the catalogue of causes, which is read when asked for: it belongs to the diagnosis."""
    catalogue: Any = importlib.import_module("ebpfdns.diagnose.catalogue")
    ids: tuple[str, ...] = catalogue.IDS
    return ids
