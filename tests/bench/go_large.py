"""How long it takes to find the resolver's functions in a Go program of 100 MB, made of generated packages.

Owns: generating and building it (minutes, once), and the figures. Must not know: what is done with them.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import tempfile
import time
from pathlib import Path

from table import Row, median

from ebpfdns.observe import go_program, programs

GO = runpy.run_path(str(Path(__file__).resolve().parents[1] / "kernel" / "gotool.py"))
PACKAGES, FUNCTIONS, STEPS = 50, 1_000, 4
LEAST_BYTES = 100_000_000
BUDGET_MS = 500.0
ROUNDS = 11


def measure(build: Path) -> list[Row]:
    """Find the functions: nothing known and nothing in memory, nothing known, and known from before."""
    program = built(build)
    megabytes = program.stat().st_size / 1e6
    kept = programs.CACHE
    figures: dict[str, list[float]] = {"from the disk": [], "from memory": [], "kept": []}
    try:
        for _ in range(ROUNDS):
            with tempfile.TemporaryDirectory() as folder:
                programs.CACHE = Path(folder)
                _forget(program)
                figures["from the disk"].append(_find_ms(program))
                for path in Path(folder).iterdir():
                    path.unlink()
                figures["from memory"].append(_find_ms(program))
                figures["kept"].append(_find_ms(program))
    finally:
        programs.CACHE = kept
    notes = {"from memory": f"{megabytes:,.0f} MB, {PACKAGES * FUNCTIONS:,} generated functions"}
    return [
        Row(
            what=f"a large Go program's functions, {name}",
            value=median(values),
            unit="ms",
            limit=BUDGET_MS,
            note=notes.get(name, ""),
        )
        for name, values in figures.items()
    ]


def built(build: Path) -> Path:
    """The program, built unless it is there."""
    version = GO["NEWEST"]
    target = build / "bench" / f"large-{version}-{PACKAGES}-{FUNCTIONS}-{STEPS}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        unfinished = target.with_name(f"{target.name}.unfinished-{os.getpid()}")
        command = [str(GO["go"](version)), "build", "-trimpath", "-o", str(unfinished), "."]
        environment = GO["go_environment"](version, build / "bench" / "go", CGO_ENABLED="0")
        subprocess.run(command, cwd=folder, env=environment, check=True)
        unfinished.replace(target)
    if target.stat().st_size < LEAST_BYTES:
        raise ValueError(f"{target} has {target.stat().st_size / 1e6:.0f} MB only")
    return target


def generate(folder: Path) -> None:
    """A main package that looks a name up and calls all of the other packages' functions by a table."""
    imports = "".join(f'\t"large/p{number}"\n' for number in range(PACKAGES))
    calls = "".join(f"\tsum += p{number}.Sum(len(os.Args))\n" for number in range(PACKAGES))
    (folder / "go.mod").write_text("module large\n\ngo 1.21\n")
    (folder / "main.go").write_text(
        f'package main\n\nimport (\n\t"fmt"\n\t"net"\n\t"os"\n\n{imports})\n\n'
        f"func main() {{\n\tsum := 0\n{calls}\tfmt.Println(sum)\n"
        "\tfmt.Println(net.LookupHost(os.Args[1]))\n}\n"
    )
    for number in range(PACKAGES):
        package = folder / f"p{number}"
        package.mkdir()
        (package / "functions.go").write_text(_package(number))


def _package(number: int) -> str:
    """Functions that differ, each too large to be inlined, none of which the linker can leave out."""
    text = [f'package p{number}\n\nimport "fmt"\n']
    for function in range(FUNCTIONS):
        text.append(f"func step{function}(n int, words []string) (int, error) {{")
        text += [
            f"\tif n%{step + 2} == {(function + step) % (step + 2)} {{\n"
            f'\t\twords = append(words, fmt.Sprintf("p{number}.{function}.{step} %d %v", n, words))\n'
            f"\t\tn += len(words) * {function + step}\n\t}}"
            for step in range(STEPS)
        ]
        text.append(f'\tif n < 0 {{\n\t\treturn 0, fmt.Errorf("step {function}: %d", n)\n\t}}')
        text.append("\treturn n, nil\n}\n")
    names = ", ".join(f"step{function}" for function in range(FUNCTIONS))
    text.append(f"var all = []func(int, []string) (int, error){{{names}}}\n")
    text.append(
        "func Sum(n int) int {\n\tsum := 0\n\tfor _, step := range all {\n"
        "\t\tif got, err := step(n, nil); err == nil {\n\t\t\tsum += got\n\t\t}\n\t}\n\treturn sum\n}\n"
    )
    return "\n".join(text)


def _find_ms(program: Path) -> float:
    started = time.perf_counter()
    found = go_program.find(str(program))
    spent_ms = (time.perf_counter() - started) * 1000
    if found is None or not found.functions:
        raise ValueError(f"nothing was found in {program}")
    return spent_ms


def _forget(program: Path) -> None:
    """Nothing of the file is in memory any more."""
    fd = os.open(program, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
