"""Names that are hard to write down, and names that are asked for in many ways."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from agent import Agent, only
from play import Played, play
from program import Program, of_this_machine

from ebpfdns.lab.faults import FAULTS
from ebpfdns.publish.lines import printable

if TYPE_CHECKING:
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

HOSTILE = {
    "newline": b"a\nb.test",
    "return": b"a\rb.test",
    "quotes": b"a\"b'c\\d.test",
    "control": bytes(range(1, 32)) + b"\x7f.test",
    "escape": b"\x1b[2Jred.test",
    "not-utf-8": b"\xe9\xff\xc0\x80.test",
    "half-a-surrogate": b"\xed\xa0\x80.test",
    "utf-8": "bücher.test".encode(),
    "right-to-left": "a\u202eb\u2066.test".encode(),
    "line-separator": "a\u2028b\u0085c.test".encode(),
    "json": b'"},{"event":"stats"}.test',
    "spaces": b"  a  ",
    "dot": b".",
    "255-bytes": b".".join([b"a" * 62] * 4) + b".bb",
    "256-bytes": b".".join([b"a" * 62] * 4) + b".bbb",
    "1000-bytes": b"x." * 500,
    "one-label": b"b" * 300,
}
MOST_BYTES = 255
SEARCHED = "search one.test two.test three.test four.test five.test six.test\n"


@pytest.fixture(scope="module")
def told(programs: dict[str, Path]) -> Played:
    argvs = {
        f"{libc}-{case}": [programs[f"lookup-{libc}"], "--name-hex", name.hex()]
        for libc in ("glibc", "musl")
        for case, name in HOSTILE.items()
        if f"lookup-{libc}" in programs
    }
    return play(FAULTS["nxdomain"], argvs, "--all")


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_any_bytes_are_a_name(told: Played, programs: dict[str, Path], libc: str, case: str) -> None:
    """A name of any bytes is told escaped, in one line; what is too long is cut, and said to be."""
    of_this_machine(programs, f"lookup-{libc}")
    line = told.only("lookup", f"{libc}-{case}")
    name = HOSTILE[case]
    assert line["lookup"]["name"] == printable(name[:MOST_BYTES])
    assert line["lookup"].get("name_cut", False) == (len(name) > MOST_BYTES)
    questions = [query["name"] or "" for query in line["lookup"]["queries"]]
    for text in (line["message"], line["lookup"]["name"], *questions):
        assert text.isprintable()


def test_what_was_cut_is_counted(told: Played) -> None:
    """Each name that was cut is counted, and a `lost` line says so."""
    cut = [line for line in told.of("lookup") if line["lookup"].get("name_cut")]
    unnamed = [
        query for line in told.of("lookup") for query in line["lookup"]["queries"] if query["name"] is None
    ]
    assert told.stats["lost"]["name_cut"] == len(cut) + len(unnamed)
    assert {line["lost"]["where"] for line in told.of("lost")} == {"name_cut"}


def test_lines_stay_lines(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """On the way out a name of all bytes is no line break, no control byte, and nothing but UTF-8."""
    name = bytes(byte for byte in range(1, 256) if byte != ord("."))
    with FAULTS["nxdomain"].setup(sandbox):
        program = Program(sandbox, [of_this_machine(programs, "lookup-glibc"), "--name-hex", name.hex()])
        with Agent("attach", "--pid", program.pid) as agent:
            program.go()
            lines = agent.finish()
    assert only(lines, "lookup")["lookup"]["name"] == printable(name)
    assert agent.text.count(b"\n") == len(lines)
    assert min(agent.text.replace(b"\n", b" ")) >= ord(" ")
    assert agent.text.decode("utf-8").replace("\n", "").isprintable()


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_a_long_search_is_one_lookup(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """A name tried with six suffixes and bare is one lookup: its first questions are told, all counted."""
    with FAULTS["nxdomain"].setup(sandbox) as running:
        sandbox.write_resolv_conf(FAULTS["nxdomain"].resolv_conf("ndots:5") + SEARCHED)
        program = Program(sandbox, [of_this_machine(programs, f"lookup-{libc}"), "--name", "www.lab"])
        with Agent("attach", "--pid", program.pid, "--all") as agent:
            program.go()
            lines = agent.finish()
        asked = running.queries()
    lookup = only(lines, "lookup")["lookup"]
    assert (lookup["name"], lookup["error"]["type"]) == ("www.lab", "EAI_NONAME")
    assert len(asked) == 14  # seven names, two types each
    first = [(entry["name"] + ".", entry["type"], entry["id"]) for entry in asked[: len(lookup["queries"])]]
    assert {(query["name"], query["type"], query["id"]) for query in lookup["queries"]} == set(first)
    assert len(lookup["queries"]) + lookup["more_queries"] == len(asked)
    assert lookup["more_queries"] > 0
    assert lines[-1]["stats"]["queries"] == {"sent": 14, "answered": 14, "unanswered": 0}
