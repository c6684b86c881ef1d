"""`make matrix`: every fault of the lab, made for real, and what the agent says of it, and how soon.

Owns: the order of the faults, the table and the confusion matrix, docs/matrix.md.
Must not know: how a fault is made (`ebpfdns demo` does), or what a rule looks at.

    run.py [--at-once N] [--write] [FAULT …]

Exit code 1 when a fault was not explained, or a wrong cause was confirmed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "kernel")]

from packages import daemons  # noqa: E402 - found by the line above

from ebpfdns.diagnose.catalogue import IDS  # noqa: E402
from ebpfdns.diagnose.cause import CONFIDENCES  # noqa: E402
from ebpfdns.lab.faults import FAULTS  # noqa: E402
from ebpfdns.lab.namespace import PACKAGE_PARENT  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs/matrix.md"
DEADLINE_S = 120
STUCK_KINDS = ("lookup_stuck", "connect_stuck")
MARKS = {"possible": "p", "likely": "l", "confirmed": "c"}

Line = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a line said the cause is, how sure, and how old the thing was then."""

    cause: str
    confidence: str
    age_ms: float | None


@dataclass(frozen=True)
class Result:
    """One fault, played."""

    fault: str
    expected: str | None
    verdicts: tuple[Verdict, ...]
    problem: str | None  # the demo itself went wrong

    @property
    def right(self) -> Verdict | None:
        """The first line that named the cause."""
        return next((verdict for verdict in self.verdicts if verdict.cause == self.expected), None)

    @property
    def last(self) -> Verdict | None:
        """The last word; of several lookups, about the one that the fault is about."""
        about = [v for v in self.verdicts if v.cause not in FAULTS[self.fault].on_the_way]
        return (about or [*self.verdicts] or [None])[-1]

    @property
    def confirmed_wrongly(self) -> list[str]:
        """Causes that were said to be sure and are not what was made."""
        true = {self.expected, *FAULTS[self.fault].on_the_way}
        return sorted({v.cause for v in self.verdicts if v.confidence == "confirmed"} - true)

    @property
    def is_right(self) -> bool:
        """Whether the last word is the cause (nothing, where nothing is wrong), and no other was sure."""
        said = self.last.cause if self.last else None
        return self.problem is None and said == self.expected and not self.confirmed_wrongly

    def strongest(self, cause: str) -> str | None:
        """The most sure that it was ever said."""
        said = [verdict.confidence for verdict in self.verdicts if verdict.cause == cause]
        return max(said, key=CONFIDENCES.index, default=None)  # type: ignore[arg-type]


def play(name: str) -> Result:
    """Run the demo of one fault, and read every line."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), **daemons()}
    argv = [sys.executable, "-P", "-m", "ebpfdns", "demo", name, "--format", "json"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, env=environment, timeout=DEADLINE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Result(name, FAULTS[name].expected_cause, (), f"no end within {DEADLINE_S} s")
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    return Result(name, FAULTS[name].expected_cause, verdicts(lines), problem[0] if problem else None)


def verdicts(lines: list[Line]) -> tuple[Verdict, ...]:
    """What was said, in order: of what was stuck, and at the end of it.

    What is healthy says nothing: a connect that ends well, the lookup before a connect that hangs.
    """
    found = []
    for line in lines:
        thing = line.get("lookup") or line.get("connect") or line.get("event_loop") or {}
        if line.get("cause"):
            age_ms = thing.get("elapsed_ms", thing.get("duration_ms", thing.get("away_ms")))
            found.append(Verdict(line["cause"]["id"], line["cause"]["confidence"], age_ms))
    return tuple(found)


def table(results: list[Result]) -> str:
    """A row for each fault."""
    head = ("fault", "cause reported", "confidence", "right after", "")
    rows = [head, *map(_row, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _row(result: Result) -> tuple[str, ...]:
    last, right = result.last, result.right
    note = result.problem or "".join(f"confirmed wrongly: {cause}" for cause in result.confirmed_wrongly)
    if not note and not result.is_right:
        note = f"expected {result.expected or 'nothing'}"
    after = "-" if right is None or right.age_ms is None else f"{right.age_ms:,.0f} ms"
    return (
        result.fault,
        last.cause if last else "nothing",
        last.confidence if last else "-",
        after,
        "right" if result.is_right else f"WRONG {note}",
    )


def matrix(results: list[Result]) -> str:
    """Faults against causes: the most sure each was ever said; [ ] around the cause that was made."""
    width = max(len(result.fault) for result in results)
    lines = [" " * (width + 2) + " ".join(f"{number:>3}" for number in range(1, len(IDS) + 1))]
    for result in results:
        cells = []
        for cause in IDS:
            mark = MARKS.get(result.strongest(cause) or "", ".")
            cells.append(f"[{mark}]" if cause == result.expected else f" {mark} ")
        lines.append(f"{result.fault:<{width}}  " + " ".join(cells).rstrip())
    return "\n".join(lines)


def page(results: list[Result]) -> str:
    """docs/matrix.md."""
    legend = ", ".join(f"{number} `{cause}`" for number, cause in enumerate(IDS, 1))
    wrong = [result.fault for result in results if not result.is_right]
    verdict = f"Not right: {', '.join(wrong)}." if wrong else "All right, none confirmed wrongly."
    return f"""# Every fault against every cause

What `make matrix` printed (on {platform.system()} {platform.release()}): each fault of the lab made
for real, with the program of the demo and the agent at `--stuck-after 1s`. {verdict}

*right after*: how old the lookup or connect was in the first line that named its cause (the line of its
end, where nothing gets stuck).

```
{table(results)}
```

## Confusion matrix

A column for each cause of the catalogue, in the order of judgement; in it the most sure that any line about
the fault said it: c confirmed, l likely, p possible, `.` never. Brackets stand around the cause that was
made. A cause beside them that was said on the way is no error when it was not confirmed: until the second
server is asked, a dead first server is a silent one. It may be confirmed where the fault says that it is
true by then: before a late answer comes, there is none.

```
{matrix(results)}
```

{legend}.
"""


def main() -> None:
    """Play, print, perhaps write the page."""
    parser = argparse.ArgumentParser(description="Every fault of the lab, and what the agent says of it.")
    parser.add_argument("--at-once", type=int, default=2, help="demos side by side")
    parser.add_argument("--write", action="store_true", help="write docs/matrix.md")
    parser.add_argument("fault", nargs="*", help="these only")
    chosen = parser.parse_args()
    names = chosen.fault or list(FAULTS)
    with ThreadPoolExecutor(chosen.at_once) as pool:
        results = list(pool.map(play, names))
    sys.stdout.write(f"{table(results)}\n\n{matrix(results)}\n")
    if chosen.write:
        PAGE.write_text(page(results), encoding="utf-8")
    sys.exit(0 if all(result.is_right for result in results) else 1)


if __name__ == "__main__":
    main()
