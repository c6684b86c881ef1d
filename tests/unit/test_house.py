"""The house rules: who may import what, what each module and test says, what the commands explain."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ebpfdns import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "agent/ebpfdns"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

#: Plain values in, plain values out: the middle, and what turns events into text.
PURE_PACKAGES = {"model", "correlate", "diagnose", "explain", "publish"}
#: The other end of the pipeline: what writes, and what reads the package's own files.
IMPURE_PUBLISHING = {"destination.py", "examples.py", "output.py", "terminal.py", "ways_out.py"}
#: These are how a clock, a file, a process or the kernel would get into the pure middle …
IMPURE = {"asyncio", "bcc", "ctypes", "io", "os", "pathlib", "pyroute2", "random", "signal", "socket", "time"}
#: … but for their constants (in capitals) and these, which only turn one value into another.
HARMLESS = {"os.fsdecode", "os.fsencode", "os.strerror", "socket.inet_ntop", "time.gmtime", "time.strftime"}
#: Names that say nothing about what is inside.
EMPTY_NAMES = {"base", "common", "core", "helper", "helpers", "manager", "misc", "util", "utils"}
#: Where writing to people is the job.
MAY_PRINT = {"cli.py", "commands", "publish"}

IMPORT_WITHOUT = """
import importlib, sys
sys.modules.update(dict.fromkeys(["bcc", "pyroute2"]))
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def module_name(path: Path) -> str:
    return ".".join(("ebpfdns", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def pure_modules() -> list[Path]:
    return [
        path
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] in PURE_PACKAGES and path.name not in IMPURE_PUBLISHING
    ]


def imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in the file, by statement or by import_module("…")."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield name


def importers(package: str) -> list[str]:
    return [relative(path) for path in MODULES if package in {name.split(".")[0] for name in imports(path)}]


def import_without_kernel_packages(paths: list[Path]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", IMPORT_WITHOUT, *(module_name(path) for path in paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pure_modules_import_without_kernel_packages():
    """The pure middle imports on a machine that has neither bcc nor pyroute2."""
    result = import_without_kernel_packages(pure_modules())
    assert result.returncode == 0, result.stderr


def test_commands_import_without_kernel_packages():
    """Every command explains itself, and `replay` works, where bcc and pyroute2 are missing."""
    paths = [PACKAGE / "commands" / f"{module}.py" for module in cli.COMMANDS.values()]
    result = import_without_kernel_packages([PACKAGE / "cli.py", *paths])
    assert result.returncode == 0, result.stderr


def ways_out(path: Path) -> Iterator[str]:
    """Uses of impure modules that are not harmless, and built-in functions that reach outside."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if (
                module in IMPURE and not name.isupper()
            ):
                yield f"{module}.{name}"
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in IMPURE:
                yield module
            case ast.Attribute(attr="now" | "today" | "utcnow" as name):
                yield name
            case ast.Call(func=ast.Name(id="open" | "input" | "exec" | "eval" as name)):
                yield name


def test_pure_modules_have_no_way_out():
    """The pure middle reads no clock and no file, and starts no process; it only turns values into others."""
    found = {relative(path): sorted(set(ways_out(path)) - HARMLESS) for path in pure_modules()}
    assert {path: ways for path, ways in found.items() if ways} == {}


def test_pure_modules_know_no_impure_ones():
    """The pure middle imports nothing from observe, lab, commands or netlink."""
    impure = ("ebpfdns.observe", "ebpfdns.lab", "ebpfdns.commands", "ebpfdns.netlink", "ebpfdns.cli")
    known = [
        (relative(path), name) for path in pure_modules() for name in imports(path) if name.startswith(impure)
    ]
    assert known == []


def test_one_file_imports_bcc():
    """Only observe/compiler.py knows that BCC exists."""
    assert importers("bcc") == ["observe/compiler.py"]


def test_one_file_imports_pyroute2():
    """Only netlink.py knows that pyroute2 exists."""
    assert importers("pyroute2") == ["netlink.py"]


def test_nobody_prints():
    """Only the command line and publishing write to people; everyone else returns or logs."""
    printing = [
        f"{relative(path)}:{node.lineno}"
        for path in MODULES
        if relative(path).split("/")[0] not in MAY_PRINT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_module_names_say_something():
    """No module or package is called after nothing in particular."""
    assert [relative(path) for path in MODULES if EMPTY_NAMES & {path.stem, path.parent.name}] == []


@pytest.mark.parametrize("path", [path for path in MODULES if not path.stem.startswith("__")], ids=relative)
def test_modules_say_what_they_own(path):
    """Each module's docstring says what it owns, and what it must not know."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert re.search(r"\bOwns: \S", text)
    assert re.search(r"\bMust not know: \S", text)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_tests_say_what_they_prove(path):
    """Each test has a docstring whose first line is a whole sentence."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            sentence = (ast.get_docstring(node) or "").split("\n\n")[0]
            assert re.match(r"\S+ .+[.:!?]$", sentence, re.DOTALL), f"{path.name}:{node.lineno} {node.name}"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_explain_themselves(name):
    """Each command has a help text, a sentence for each option, and an example with its own name."""
    command = importlib.import_module(f"ebpfdns.commands.{cli.COMMANDS[name]}").command
    assert command.help
    assert f"ebpfdns {name}" in f"{command.help} {command.epilog}"
    for parameter in command.params:
        assert parameter.param_type_name == "argument" or parameter.help, parameter.name
