"""`ebpfdns doctor`: what this host can and cannot trace, each line with its remedy.

Owns: gathering the facts for the checks, printing them, and the verdict.
Must not know: how a fact is found out (observe/), or what it means (host_checks, tracepoint_checks).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, get_args

import click

from ebpfdns.commands.host_checks import AS_ROOT, Check, Status, host_checks, libc_check
from ebpfdns.commands.tracepoint_checks import tracepoint_checks
from ebpfdns.errors import EbpfdnsError, HostCannotTraceError
from ebpfdns.observe.host import Host, read_host
from ebpfdns.observe.libraries import find_libraries
from ebpfdns.observe.processes import read_process
from ebpfdns.observe.tracepoints import tracepoint_layout

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_WIDTH = 36
STATUSES: dict[str, Status] = {status: status for status in get_args(Status)}
SELF_TEST_MODULE = "ebpfdns.observe.self_test"


@click.command(
    name="doctor",
    short_help="Say what this host can and cannot trace.",
    epilog="Examples: `sudo ebpfdns doctor`, `ebpfdns doctor --format json | jq .can_attach`.",
)
@click.option(
    "--format",
    "output_format",
    envvar="EBPFDNS_DOCTOR_FORMAT",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Lines to read, or one JSON object.",
)
def command(output_format: Literal["text", "json"]) -> None:
    """Say what this host can and cannot trace, each line with its remedy.

    Ends with 0 when `ebpfdns attach` can do its job here, 3 when it cannot.
    """
    host = read_host()
    checks = [*host_checks(host), *_tracepoints(host), _libc(), *_self_test()]
    click.echo(as_json(host, checks) if output_format == "json" else as_text(checks))
    missing = [check for check in checks if check.status == "missing"]
    if missing:
        names = ", ".join(check.name for check in missing)
        raise HostCannotTraceError(f"attach cannot work here: {names}", remedy=missing[0].remedy)


def as_text(checks: Sequence[Check]) -> str:
    """One line per check, a second one for its remedy, and the verdict."""
    lines = []
    for check in checks:
        lines.append(f"{check.status:<9} {check.name:<{NAME_WIDTH}} {check.detail}")
        if check.remedy:
            lines.append(f"{'':<9} {'':<{NAME_WIDTH}} → {check.remedy}")
    return "\n".join([*lines, "", verdict(checks)])


def as_json(host: Host, checks: Sequence[Check]) -> str:
    """The same, for a program."""
    about = {"name": os.uname().nodename, "kernel": host.kernel_release, "machine": host.machine}
    can_attach = all(check.status != "missing" for check in checks)
    listed = [asdict(check) for check in checks]
    return json.dumps(
        {"can_attach": can_attach, "host": about, "checks": listed}, ensure_ascii=False, indent=2
    )


def verdict(checks: Sequence[Check]) -> str:
    """One sentence."""
    count = Counter(check.status for check in checks)
    if count["missing"]:
        return f"attach cannot work here: {count['missing']} missing."
    if count["degraded"]:
        return f"attach can do its job here, but not see everything: {count['degraded']} degraded."
    return "attach can do its job here, and see everything."


def _tracepoints(host: Host) -> list[Check]:
    """Look for each tracepoint; where there is no tracefs, its own check has said so."""
    if host.tracefs is None:
        return []
    try:
        return tracepoint_checks(host.machine, functools.partial(tracepoint_layout, host.tracefs))
    except PermissionError:
        what = f"{host.tracefs} may not be read: not with these rights, or not under lockdown=confidentiality"
        return [Check("tracepoints", "missing", what, AS_ROOT)]


def _libc() -> Check:
    """Look for lookup functions in the libc of this process: nobody is asked for the right to do that."""
    try:
        return libc_check(find_libraries(read_process(os.getpid())))
    except EbpfdnsError as error:
        return Check("lookup functions", "degraded", str(error), error.remedy)


def _self_test() -> list[Check]:
    """Load and attach for real, where the module that does so is installed and its packages are, too."""
    if importlib.util.find_spec(SELF_TEST_MODULE) is None:
        return []
    try:
        self_test = getattr(importlib.import_module(SELF_TEST_MODULE), "self_test", None)
        rows = self_test() if self_test is not None else []
        return [Check(name, STATUSES[status], detail) for name, status, detail in rows]
    except EbpfdnsError as error:
        return [Check("self-test", "missing", str(error), error.remedy)]
    except (ImportError, OSError) as error:
        return [Check("self-test", "missing", f"bcc does not work: {error}", "apt-get install python3-bpfcc")]
