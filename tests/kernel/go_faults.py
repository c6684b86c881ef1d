"""What goes wrong in Go programs only, made with the Go program of the workloads.

Owns: the table, and the play of one. Must not know: what is shown of it, or which evidence there must be.

They are not among the faults of the lab: that makes its own without a compiler for Go.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent import Agent
from gotarget import SOURCES, Flavour
from gotool import go, go_environment
from play import SHORT, SOON, TRIES
from program import Program

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, ServerPlan
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER
from ebpfdns.lab.namespace import Sandbox, plain_environment

if TYPE_CHECKING:
    from pathlib import Path

    Line = dict[str, Any]

MISSED = "kernel_missed"
CGO, UNINTERRUPTED = ("GODEBUG", "netdns=cgo"), ("GODEBUG", "asyncpreemptoff=1")
OTHER_SERVER = f"nameserver {topology.SERVER_2}\n"


def _serving(*script: dict[str, Any]) -> Fault:
    plan = ServerPlan((topology.SERVER_1,), script)
    return Fault("own", "A server of the test's own.", servers=(plan,))


@dataclass(frozen=True)
class GoFault:
    """One of them."""

    name: str
    sentence: str
    fault: Fault
    cause: str
    words: tuple[object, ...]
    needs: Flavour = field(default_factory=Flavour)
    options: str = SHORT
    environment: tuple[tuple[str, str], ...] = ()
    agent_words: tuple[str, ...] = ()
    on_the_way: tuple[str, ...] = ()  # true of other lookups of the program, or at its end
    reports: int | None = None  # it would take too long: ended after so many that name the cause
    is_run_by_go: bool = False  # the target is `go run`


TABLE = (
    GoFault(
        "one name, ten goroutines",
        "Ten goroutines look one name up; Go asks once, a server that is silent.",
        FAULTS["silent"],
        "coalesced_wait",
        ("--way", "same", "--goroutines", 10),
        on_the_way=("ns_silent",),  # of the one that asks
    ),
    GoFault(
        "more names than threads",
        "With 40 descriptors Go lets 10 lookups be in libc at a time; the others wait.",
        FAULTS["silent"],
        "go_cgo_thread_limit",
        ("--way", "names", "--goroutines", 13, "--nofile", 40),
        Flavour(cgo=True),
        "timeout:2 attempts:1",
        (CGO,),
        on_the_way=("ns_silent",),  # of those that hold the places, and of these once they have one
    ),
    GoFault(
        "a loop on the only processor",
        "GOMAXPROCS is 1, and a loop that nobody may interrupt runs when the answer comes.",
        _serving({**GOOD_ANSWER, "delay_ms": 700}),
        "reply_not_read",
        ("--way", "busy", "--busy", "1700ms"),
        options="timeout:5",
        environment=(UNINTERRUPTED,),
        on_the_way=("ns_silent",),  # before it comes
    ),
    GoFault(
        "a resolv.conf that has just changed",
        "The file names another server now; Go looks at it every 5 s only.",
        _serving({**GOOD_ANSWER, "nth": 1}, {"drop": True}),
        "stale_resolv_conf",
        ("--way", "ip", "--replace", OTHER_SERVER),
    ),
    GoFault(
        "a dial without a deadline",
        "The name resolves; the address swallows every packet, and DialContext has no deadline.",
        FAULTS["connect_after_dns"],
        "connect_after_dns",
        ("--way", "dial", "--connect", 443),
        agent_words=("--all",),
        reports=3,
    ),
    GoFault(
        "one lookup after the other",
        "The only server is silent, and resolv.conf makes each lookup wait a minute for it.",
        FAULTS["silent"],
        "ns_silent",
        ("--way", "turns", "--lookups", 3),
        options="timeout:30 attempts:1 single-request",
        reports=2,
    ),
    GoFault(
        "go run",
        "`go run` waits for the program that it has built, which asks a silent server.",
        FAULTS["silent"],
        "child_process",
        ("--way", "ip"),
        options="timeout:2 attempts:1",
        is_run_by_go=True,
    ),
)
GO_FAULTS = {fault.name: fault for fault in TABLE}


def play(made: GoFault, program: Path, **changes: Any) -> list[Line]:
    """All lines about one of them; `changes` are fields. Again when the kernel passed over probes."""
    for _ in range(TRIES):
        lines = _play(replace(made, **changes), program)
        if MISSED not in lines[-1]["stats"]["lost"]:
            break
    return lines


def _play(made: GoFault, program: Path) -> list[Line]:
    environment = plain_environment() | dict(made.environment)
    argv: list[object] = [program]
    folder = None
    if made.is_run_by_go:  # its cache is the one that the program was built with, so it has little to build
        compiler = go(made.needs.version)
        changes = dict(made.environment) | {"CGO_ENABLED": "0"}
        environment = go_environment(made.needs.version, program.parents[1] / "go", **changes)
        argv, folder = [compiler, "run", "-trimpath", "."], SOURCES
    with Sandbox() as sandbox, made.fault.setup(sandbox, options=made.options):
        words = [*argv, "--name", topology.NAME, *made.words]
        running = Program(sandbox, words, env=environment, cwd=folder)
        with Agent("attach", "--pid", running.pid, "--stuck-after", SOON, *made.agent_words) as observer:
            running.go()
            if made.reports is not None:
                observer.wait_for(lambda line: line.get("cause", {}).get("id") == made.cause, made.reports)
                running.process.kill()
            else:
                running.result()
            return observer.finish()
