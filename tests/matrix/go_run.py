"""`make go-matrix`: Go programs: each build under each fault, Go's own faults, very many lookups.

Owns: the order, the tables, docs/go-matrix.md.
Must not know: what must be said in a cell (`go_cells` does), or what a rule looks at.

    go_run.py [--write] [--only builds|faults|load]

Exit code 1 when something is not right.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "kernel")]

import go_cells  # noqa: E402 - found by the line above, as all of these
import go_faults  # noqa: E402
from go_cells import Outcome  # noqa: E402
from go_faults import GoFault  # noqa: E402
from go_survival import FULL, Load, Survived, survive  # noqa: E402
from gotarget import FLAVOURS, Flavour, gotarget  # noqa: E402
from gotool import NEWEST, OLDEST  # noqa: E402

from ebpfdns.diagnose.cause import CONFIDENCES  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).resolve().parents[2] / "docs/go-matrix.md"
#: libc's half a thousand threads are slower
LOADS = ((Flavour(OLDEST), FULL), (Flavour(NEWEST), FULL), (Flavour(NEWEST, cgo=True), Load(1_009, 10_007)))

Table = list[tuple[str, ...]]


@dataclass(frozen=True)
class Row:
    """One build under all faults; without outcomes: why it could not be played."""

    flavour: Flavour
    outcomes: tuple[Outcome, ...]
    problem: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether every cell is as it must be."""
        return self.problem is None and not any(outcome.problems for outcome in self.outcomes)


def play(flavour: Flavour) -> Row:
    """All cells of one build."""
    try:
        return Row(flavour, tuple(go_cells.play(gotarget(flavour), flavour)))
    except AssertionError as error:
        return Row(flavour, (), str(error).splitlines()[0])


def builds(rows: list[Row]) -> Table:
    """A line for each build and fault."""
    lines: Table = [("build", "fault", "cause reported", "confidence", "right after", "api", "goroutine", "")]
    for row in rows:
        if row.problem:
            lines.append((row.flavour.name, "", "", "", "", "", "", f"WRONG {row.problem}"))
        lines += [(row.flavour.name, outcome.cell.name, *_told(outcome)) for outcome in row.outcomes]
    return lines


def _told(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.cause or "nothing",
        outcome.confidence or "-",
        _age(outcome.after_ms),
        outcome.api or "-",
        "-" if outcome.goroutine is None else str(outcome.goroutine),
        _verdict(outcome.problems),
    )


def _age(age_ms: float | None) -> str:
    return "-" if age_ms is None else f"{age_ms:,.0f} ms"


def _verdict(problems: tuple[str, ...]) -> str:
    return f"WRONG {'; '.join(problems)}" if problems else "right"


def fault(made: GoFault) -> tuple[str, ...]:
    """The line of one of Go's own faults."""
    try:
        lines = go_faults.play(made, gotarget(made.needs))
    except AssertionError as error:
        return made.name, "", "", "", f"WRONG {str(error).splitlines()[0]}"
    told = [line for line in lines if line.get("cause")]
    right = [line for line in told if line["cause"]["id"] == made.cause]
    sure = {line["cause"]["id"] for line in told if line["cause"]["confidence"] == "confirmed"}
    problems = [f"confirmed wrongly: {cause}" for cause in sorted(sure - {made.cause, *made.on_the_way})]
    if not right:
        return made.name, "", "", "", _verdict((f"expected {made.cause}", *problems))
    thing = right[0].get("lookup") or right[0]["connect"]
    age_ms = thing.get("elapsed_ms", thing.get("duration_ms"))
    confidences = [line["cause"]["confidence"] for line in right]
    surest = max(confidences, key=CONFIDENCES.index)
    return made.name, made.cause, surest, _age(age_ms), _verdict(tuple(problems))


def load(flavour: Flavour, amount: Load) -> tuple[str, ...]:
    """The line of very many lookups."""
    survived: Survived = survive(gotarget(flavour), flavour, amount)
    counts = survived.stats["lookups"]
    per_lookup_us = survived.took_ms * 1000 / amount.lookups
    return (
        flavour.name,
        f"{amount.goroutines:,}",
        f"{amount.lookups:,}",
        f"{counts['started']:,}",
        f"{counts['ok']:,}",
        f"{per_lookup_us:,.0f} µs",
        _verdict(survived.problems),
    )


def text(table: Table) -> str:
    """Columns, the head underlined."""
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in table]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def page(tables: dict[str, Table]) -> str:
    """docs/go-matrix.md."""
    wrong = sum(line[-1].startswith("WRONG") for table in tables.values() for line in table)
    verdict = f"{wrong} of them are not right." if wrong else "All right."
    sentences = "\n".join(f"- *{made.name}*: {made.sentence}" for made in go_faults.TABLE)
    return f"""# Go programs under each fault

What `make go-matrix` printed (on {platform.system()} {platform.release()}): one Go program, built by the
oldest and the newest Go of the tests, without cgo (`pure`) and with it, stripped or not, under each fault,
with `--stuck-after 300ms`. The builds with cgo run with `GODEBUG=netdns=cgo`, so that libc resolves for
them. {verdict}

A cell is right when the cause is the one that was made and no other was confirmed; when the lookup's name,
its status, its goroutine, its api and resolver, and the text of Go's error are what the program itself has
seen; when the counters are exact, nothing was lost, and the program has not crashed.

*right after*: how old the lookup or connect was in the first line that named its cause. *truncated*: the
answer came by TCP, which is no fault.

```
{text(tables["builds"])}
```

## What goes wrong in Go programs only

{sentences}

```
{text(tables["faults"])}
```

## Very many lookups

Goroutines look up as fast as they can, each time on a new stack that grows under the probes, while the
collector runs without a pause. *seen* and *ok* are the agent's counters.

```
{text(tables["load"])}
```
"""


PARTS: dict[str, Callable[[], Table]] = {
    "builds": lambda: builds([play(flavour) for flavour in FLAVOURS]),
    "faults": lambda: [
        ("fault", "cause reported", "confidence", "right after", ""),
        *map(fault, go_faults.TABLE),
    ],
    "load": lambda: [
        ("build", "goroutines", "lookups", "seen", "ok", "each took", ""),
        *(load(*entry) for entry in LOADS),
    ],
}


def main() -> None:
    """Play, print, perhaps write the page."""
    parser = argparse.ArgumentParser(description="Go programs, and what the agent says of them.")
    parser.add_argument("--write", action="store_true", help="write docs/go-matrix.md")
    parser.add_argument("--only", choices=PARTS, help="one part")
    chosen = parser.parse_args()
    for flavour in FLAVOURS:  # so that the times below are the agent's
        gotarget(flavour)
    tables: dict[str, Table] = {}
    for name, make in PARTS.items():
        if chosen.only in {None, name}:
            began_s = time.monotonic()
            tables[name] = make()
            took_s = time.monotonic() - began_s
            sys.stdout.write(f"{text(tables[name])}\n{len(tables[name]) - 1} lines in {took_s:.0f} s\n\n")
            sys.stdout.flush()
    if chosen.write:
        PAGE.write_text(page(tables), encoding="utf-8")
    sys.exit(any(line[-1].startswith("WRONG") for table in tables.values() for line in table))


if __name__ == "__main__":
    main()
