"""`make bench`: every performance budget, measured in one run against empty probes and the two peers.

Owns: the order of the sections, the table on stdout, and build/bench.json.
Must not know: how anything is measured. A figure that cannot be had is shown as such, with the reason;
nothing here fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cost
import daemons
import footprint
import go_cost
import go_large
import load
import looking
import packages
from table import Row, render

from ebpfdns.errors import EbpfdnsError

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"
OPEN_FILES = 20_000  # a socket per stuck lookup
STUCK_THREADS = (1, 1_000, 4_096)
LOOKED_AT_THREADS = (1, 256)
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


class Bench:
    """The rows and raw figures so far."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.raw: dict[str, Any] = {}
        self._started = time.monotonic()

    def section(self, title: str, measure: Callable[[], list[Row]]) -> None:
        """Measure, and go on with the next section when this one cannot be."""
        sys.stderr.write(f"[{time.monotonic() - self._started:4.0f} s] {title}\n")
        try:
            self.rows += measure()
        except (
            EbpfdnsError,
            OSError,
            KeyError,
            RuntimeError,
            ValueError,
            subprocess.SubprocessError,
        ) as error:
            self.rows.append(Row(what=title, value=None, note=f"{type(error).__name__}: {error}"))

    def write(self, path: Path) -> None:
        """The same as the table, and what it was made from."""
        uname = platform.uname()
        machine = {"kernel": uname.release, "architecture": uname.machine, "cpus": os.cpu_count()}
        report = {"machine": machine, "rows": [row.as_json() for row in self.rows], "raw": self.raw}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Measure all, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only whether it works: the figures mean little")
    parser.add_argument("--only", choices=["cost", "go", "load", "daemons", "footprint"], help="one part")
    parser.add_argument("--json", type=Path, default=BUILD / "bench.json", help="where to write the figures")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the bench loads BPF programs: sudo make bench")
    _allow_open_files()
    bench = Bench()
    with tempfile.TemporaryDirectory() as folder:
        _run(bench, Path(folder), chosen.only, is_quick=chosen.quick)
    bench.write(chosen.json)
    print(render(bench.rows))  # noqa: T201 - the product
    sys.stderr.write(f"figures in {chosen.json}\n")


def _run(bench: Bench, folder: Path, only: str | None, *, is_quick: bool) -> None:
    """All sections, or those of one part."""
    programs: dict[str, Path] = runpy.run_path(str(HERE.parent / "workloads" / "build.py"))["build"]()
    loops = _compiled(HERE / "loops.c", BUILD / "bench" / "loops")
    scale = 0.05 if is_quick else 1.0

    def rates() -> list[Row]:
        rows, bench.raw["query_rates"] = load.query_rates(programs, folder, 200 if is_quick else 2500)
        return rows

    def followed() -> list[Row]:
        os.environ.update(packages.daemons())
        rounds, duration_ms = (1, 200) if is_quick else (8, 1000)
        rows, bench.raw["daemons"] = daemons.measure(programs, folder, rounds, duration_ms)
        return rows

    def footprints() -> list[Row]:
        with cost.loops(loops) as target:
            return footprint.measure(
                target.process.pid, folder, 1 if is_quick else 5, 1.0 if is_quick else 10.0
            )

    _run_costs(bench, loops, folder, only, 1 if is_quick else 7, scale)
    if only in (None, "load"):
        bench.section("healthy lookups", lambda: load.counts(programs, folder, scale))
        for threads in STUCK_THREADS[: 1 if is_quick else None]:
            stuck = functools.partial(load.stuck_at_once, programs, folder, threads)
            bench.section(f"{threads:,} stuck lookups", stuck)
        bench.section("DNS queries a second", rates)
    if only in (None, "daemons"):
        bench.section("daemons that are followed", followed)
    if only in (None, "footprint"):
        bench.section("start, memory, idle CPU", footprints)
        for threads in LOOKED_AT_THREADS:
            look = functools.partial(looking.measure, threads, 3 if is_quick else 31)
            bench.section(f"a look at {threads} stuck threads", look)
        bench.section("lines a second", lambda: footprint.line_rate(int(200_000 * scale)))


def _run_costs(  # noqa: PLR0917 - what it has of its caller
    bench: Bench, loops: Path, folder: Path, only: str | None, rounds: int, scale: float
) -> None:
    """What the probes add to single calls."""

    def costs() -> list[Row]:
        rows, bench.raw["cost"] = cost.measure(loops, folder, rounds, scale)
        return rows

    def go_costs() -> list[Row]:
        rows, bench.raw["go_cost"] = go_cost.measure(folder, rounds, scale)
        return rows

    if only in (None, "cost"):
        bench.section("cost of the probes", costs)
    if only in (None, "go"):
        bench.section("Go programs", go_costs)
        bench.section("functions of a large Go program", lambda: go_large.measure(BUILD))


def _compiled(source: Path, target: Path) -> Path:
    """The program of this source, compiled now: it takes a tenth of a second."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*COMPILE, "-o", target, source], check=True)
    return target


def _allow_open_files() -> None:
    """As many as the workloads need, or as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
