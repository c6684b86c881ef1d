"""Everything about how one process resolves names: the object that `inspect --format json` prints.

Owns: the shape of that object (docs/inspect.md). Must not know: how it is shown to people.

`facts`: what `observe.inspection` gives; each key may be absent or None. `asked`: {name, answers} of
`observe.asking`, when questions were to be sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.explain import comparison, go_choice, managers, resolver_path, schedule, servers, waits
from ebpfdns.explain.findings import EXAMPLE_NAME, findings
from ebpfdns.publish.lines import INVISIBLE, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]

THREAD_KEYS = ("tid", "name", "state", "syscall", "asleep_ms", "stack", "lookup")


def report(facts: Facts) -> dict[str, Any]:
    """The whole of it, as plain values that are safe to show."""
    found: dict[str, Any] = shown(_report(facts))
    return found


def shown(value: Any) -> Any:  # noqa: ANN401 - any part of a report
    """The same with text from outside (files, links, names of threads) escaped that a terminal would obey."""
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if isinstance(value, str) and (not value.isprintable() or not INVISIBLE.isdisjoint(value)):
        return printable(value.encode("utf-8", "surrogateescape"))
    return value


def _report(facts: Facts) -> dict[str, Any]:
    go = go_choice.choose(facts["go_program"]) if facts.get("go_program") else None
    if go is not None and go.resolver is not None:
        facts = {**facts, "resolver": "go" if go.resolver == "go" else facts.get("resolver"), "go_choice": go}
    conf = facts.get("resolv_conf") or {}
    manager = managers.manager_of(conf) if conf.get("present") else None
    return {
        "v": 1,
        "process": facts.get("process"),
        "container": facts.get("container"),
        "os": facts.get("os"),
        "resolver": {
            "kind": facts.get("resolver"),
            "go": facts.get("go"),
            "static": facts.get("static"),
            "go_resolver": None if go is None else _go_resolver(facts["go_program"], go),
            "libc": facts.get("libc"),
            "why": resolver_path.why(facts),
            "steps": resolver_path.steps(facts),
        },
        "resolv_conf": _resolv_conf(conf, manager),
        "nameservers": servers.servers(facts),
        "cost": _cost(conf, facts.get("resolver") or "unknown"),
        "findings": [
            {
                "id": finding.id,
                "severity": finding.severity,
                "text": finding.text,
                "evidence": dict(finding.evidence),
                "remedy": finding.remedy,
            }
            for finding in findings(facts)
        ],
        "threads": [
            {**{key: thread.get(key) for key in THREAD_KEYS}, "text": waits.waits_for(thread)}
            for thread in facts.get("threads") or ()
        ],
        "threads_total": facts.get("threads_total"),
        "goroutines": None
        if facts.get("goroutines") is None
        else list(map(waits.goroutine, facts["goroutines"])),
        "not_seen": list(facts.get("not_seen") or ()),
        "comparison": None if facts.get("asked") is None else _comparison(facts["asked"]),
    }


def _comparison(asked: Facts) -> dict[str, Any]:
    """What the questions brought that were sent because the user wanted it."""
    found = comparison.conclusions(asked["answers"])
    return {
        "name": asked["name"],
        "notice": f"{len(asked['answers'])} ways were tried by sending questions about {asked['name']}.",
        "conclusions": [{"id": one.id, "text": one.text, "remedy": one.remedy} for one in found],
        "answers": list(asked["answers"]),
    }


def _go_resolver(program: Facts, go: go_choice.Choice) -> dict[str, Any]:
    """Which of Go's two resolvers it takes for an ordinary name, and why."""
    version = ".".join(str(number) for number in program.get("version") or ())
    return {
        "version": f"go{version}" if version else None,
        "choice": go.resolver,
        "sources": go.sources,
        "why": list(go.why),
    }


def _resolv_conf(conf: Facts, manager: managers.Manager | None) -> dict[str, Any]:
    keys = (
        "path",
        "links",
        "target",
        "present",
        "nameservers",
        "search",
        "options",
        "size_bytes",
        "mtime_wall_ns",
    )
    found = {key: conf.get(key) for key in keys}
    return {**found, "manager": None if manager is None else {"id": manager.id, "text": manager.text}}


def _cost(conf: Facts, resolver: str) -> dict[str, Any] | None:
    """What one lookup may take; None when resolv.conf was not seen."""
    if conf.get("present") is None:
        return None
    cost = schedule.cost(EXAMPLE_NAME, conf, resolver)
    return {
        "name": EXAMPLE_NAME,
        "names_tried": list(cost.names),
        "questions": cost.questions,
        "silent_s": cost.silent_s,
        "text": cost.nothing_answers,
    }
