"""The report of `inspect` for people: the same facts as its JSON, in the order in which one asks.

Owns: headings, order, colours. Must not know: where the facts come from.
Text from outside was escaped where it was read; here it is never taken for markup.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ebpfdns.publish import comparison_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import RenderableType

    Report = Mapping[str, Any]

STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}
MAX_IDLE_THREADS = 12
MAX_GOROUTINES = 64


def page(report: Report) -> RenderableType:
    """All of it."""
    return Group(*_parts(report))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield _title(report)
    yield from _findings(report["findings"])
    yield from _section("How it resolves names", [report["resolver"]["why"], *_steps(report["resolver"])])
    yield from _section("resolv.conf", _resolv_conf(report))
    if report["goroutines"]:
        yield from _section("What its goroutines look up", _goroutines(report["goroutines"]))
    yield from _section("What its threads do", _threads(report))
    if report["not_seen"]:
        yield from _section("Not seen", report["not_seen"])
    if report["comparison"]:
        yield from comparison_table.parts(report["comparison"])


def _title(report: Report) -> Text:
    process = report["process"]
    name, path = process["executable"]["name"], process["executable"]["path"]
    text = Text(f"{name} (pid {process['pid']})", style="bold")
    where = [path, (report.get("os") or {}).get("name"), report["resolver"]["libc"]]
    container = report.get("container")
    where += [f"container {container['id'][:12]}"] if container else []
    return text.append("  " + ", ".join(filter(None, where)), style="not bold dim")


def _findings(found: Iterable[Mapping[str, Any]]) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 1))
    for finding in found:
        text = Text(finding["text"])
        if finding["remedy"]:
            text.append(f"\ntry: {finding['remedy']}", style="cyan")
        table.add_row(Text(f"{finding['severity']}:", style=STYLES[finding["severity"]]), text)
    if table.row_count:
        yield Padding(table, (1, 0, 0, 2), expand=False)
    else:
        yield Padding(Text("Nothing odd was found.", style="green"), (1, 0, 0, 2), expand=False)


def _section(title: str, lines: Iterable[str]) -> Iterator[RenderableType]:
    yield Text(f"\n{title}", style="bold")
    for line in lines:
        yield Padding(Text(line), (0, 0, 0, 2), expand=False)


def _steps(resolver: Mapping[str, Any]) -> list[str]:
    return [f"{number}. {step['source']}: {step['text']}" for number, step in enumerate(resolver["steps"], 1)]


def _resolv_conf(report: Report) -> Iterator[str]:
    conf = report["resolv_conf"]
    if conf["present"] is None:
        yield "may not be read"
        return
    arrow = "".join(f" → {link}" for link in conf["links"] or ())
    manager = conf["manager"]
    by = f", written by {manager['text']}" if manager else ""
    yield f"{conf['path']}{arrow}{by}" if conf["present"] else f"{conf['path']}{arrow} does not exist"
    for server in report["nameservers"]:
        unasked = "" if server["asked"] else " (never asked: only the first three are)"
        yield f"nameserver {server['address']}: {server['text']}{unasked}"
    for key in ("search", "options"):
        if conf[key]:
            yield f"{key}: {' '.join(conf[key])}"
    cost = report["cost"]
    tried = f"{len(cost['names_tried'])} names" if len(cost["names_tried"]) > 1 else "1 name"
    asks = f"a lookup of {cost['name']} tries {tried}, asks up to {cost['questions']} questions"
    yield f"{asks}; {cost['text']}"


def _goroutines(found: Iterable[Report]) -> Iterator[str]:
    for one in islice(found, MAX_GOROUTINES):
        yield f"goroutine {one['id']} in {one['call']} of {one['name'] or 'an unknown name'}: {one['text']}"


def _threads(report: Report) -> Iterator[str]:
    threads = report["threads"]
    in_lookup = [thread for thread in threads if thread["lookup"]]
    others = [thread for thread in threads if not thread["lookup"]]
    for thread in [*in_lookup, *others[:MAX_IDLE_THREADS]]:
        asleep_ms = thread["asleep_ms"]
        since = f", for {asleep_ms / 1000:.1f} s" if asleep_ms is not None and thread["state"] == "S" else ""
        yield f"{thread['tid']} {thread['name'] or ''}: {thread['text']}{since}{_inside(thread['lookup'])}"
    left = (report["threads_total"] or len(threads)) - len(in_lookup) - min(len(others), MAX_IDLE_THREADS)
    if left > 0:
        yield f"and {left} more"


def _inside(lookup: Report | None) -> str:
    """Which call a thread is in, and for which name."""
    if not lookup:
        return ""
    name = f" of {lookup['name']}" if lookup.get("name") else ""
    return f" [in {lookup['api'] or 'a lookup'}{name}]"
