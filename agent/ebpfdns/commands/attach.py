"""`ebpfdns attach`: trace processes that are running.

Owns: the options, and putting kernel, session and output together in the right order.
Must not know: how any of them works.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ebpfdns import logs
from ebpfdns.commands import shared_options
from ebpfdns.commands.durations import Duration
from ebpfdns.errors import HostCannotTraceError, UsageError

if TYPE_CHECKING:
    from ebpfdns.observe.host import Host
    from ebpfdns.observe.kernel import Kernel
    from ebpfdns.observe.plan import Options
    from ebpfdns.observe.sources import Sizes
    from ebpfdns.observe.target import Target

EXAMPLES = """
\b
Examples:
  sudo ebpfdns attach --pid 4242
  sudo ebpfdns attach --pid 4242 --all --duration 30s
  sudo ebpfdns attach --pid 4242 --output /var/log/ebpfdns.jsonl
"""


@click.command("attach", epilog=EXAMPLES)
@click.option("--pid", "pids", type=click.IntRange(1), multiple=True, required=True, help="Process to trace.")
@click.option(
    "--stuck-after", type=Duration(), default="1s", show_default=True, help="Age of a stuck lookup."
)
@click.option("--slow-after", type=Duration(), default="100ms", show_default=True, help="Age of a slow one.")
@click.option("--all", "publish_all", is_flag=True, help="A line for every lookup and connect.")
@click.option("--children", is_flag=True, help="Follow fork and clone too.")
@click.option("--output", default="-", show_default=True, help="File for the lines; - is stdout.")
@shared_options.FORMAT
@click.option("--duration", type=Duration(), help="Stop after this time.")
@click.option("--record", type=click.Path(path_type=Path), help="Keep what was observed, for replay.")
@click.option("--redact-names", is_flag=True, help="Hash the names that are looked up.")
@click.option("--stats-every", type=Duration(), default="60s", show_default=True, help="Between stats lines.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Created once every probe is live.")
@click.option("--dns-port", "dns_ports", type=click.IntRange(1, 65535), multiple=True, help="Instead of 53.")
@click.option(
    "--log-level", type=click.Choice(logs.LEVELS), default="warning", show_default=True, help="Of stderr."
)
@click.option("--dry-run", is_flag=True, help="Compile, load and attach; then exit.")
@click.option("--ring-pages", type=click.IntRange(1, 4096), default=256, hidden=True, help="Room for frames.")
@click.option("--max-lookups", type=click.IntRange(1, 65536), default=4320, hidden=True, help="Open at once.")
@click.option(
    "--max-calls", type=click.IntRange(1, 65536), default=10_752, hidden=True, help="Threads at once."
)
@click.option(
    "--assume-kernel", "assumed_kernel", hidden=True, help="Do without what is newer than 5.10, say."
)
def command(
    *,
    pids: tuple[int, ...],
    stuck_after: int,
    slow_after: int,
    publish_all: bool,
    children: bool,
    output: str,
    form: str,
    duration: int | None,
    record: Path | None,
    redact_names: bool,
    stats_every: int,
    ready_file: Path | None,
    dns_ports: tuple[int, ...],
    log_level: str,
    dry_run: bool,
    ring_pages: int,
    max_lookups: int,
    max_calls: int,
    assumed_kernel: str | None,
) -> None:
    """Trace running processes until Ctrl-C, --duration, or their end.

    Writes one JSON line for each lookup that is stuck, slow or failed: why it waits, and what helps.
    """
    from ebpfdns.observe import sources  # noqa: PLC0415 - `ebpfdns --help` needs none of it
    from ebpfdns.observe.plan import Options  # noqa: PLC0415

    logs.set_level(log_level)
    if record is not None and redact_names:
        raise UsageError(
            "a recording holds names as they are: --record and --redact-names exclude each other",
            remedy="leave one of them out",
        )
    sizes = sources.Sizes(ring_pages=ring_pages, lookups=max_lookups, calls=max_calls)
    options = Options(
        stuck_after_ns=stuck_after,
        # What was told of as stuck must be told of when it ends, so it must count as slow.
        slow_after_ns=min(slow_after, stuck_after),
        publish_all=publish_all,
        stats_every_ns=stats_every,
        duration_ns=duration,
        ready_file=ready_file,
        redact_key=secrets.token_hex(16) if redact_names else None,
    )
    trace(
        tuple(dict.fromkeys(pids)),
        options,
        sizes,
        dns_ports=dns_ports or (53,),
        output=output,
        form=form,
        record=record,
        children=children,
        dry_run=dry_run,
        assumed_kernel=assumed_kernel,
    )


def trace(
    pids: tuple[int, ...],
    options: Options,
    sizes: Sizes,
    *,
    dns_ports: tuple[int, ...],
    output: str,
    form: str,
    record: Path | None,
    children: bool,
    dry_run: bool,
    assumed_kernel: str | None,
) -> None:
    """Everything after the options: targets first (exit code 4), then rights (3), then the session."""
    from ebpfdns.observe.host import kernel_version, read_host  # noqa: PLC0415
    from ebpfdns.observe.kernel import Kernel  # noqa: PLC0415
    from ebpfdns.observe.recording import Recorder  # noqa: PLC0415
    from ebpfdns.observe.session import Session  # noqa: PLC0415
    from ebpfdns.observe.sources import fitting  # noqa: PLC0415
    from ebpfdns.observe.target import Target  # noqa: PLC0415
    from ebpfdns.observe.tracefs import ensure_tracefs  # noqa: PLC0415
    from ebpfdns.publish.ways_out import open_way_out  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        targets = [Target(pid) for pid in pids]
        for target in targets:
            stack.callback(target.close)
        host = read_host()
        _check_rights(host)
        tracefs = ensure_tracefs()
        host = replace(host, tracefs=str(tracefs))
        if assumed_kernel is not None:
            host = replace(host, kernel=kernel_version(assumed_kernel))
        # A probe finds a process by its first thread, which may have ended: then it is bound to no process.
        is_headless = any(target.process.alive_tid != target.pid for target in targets)
        variant = fitting(
            host,
            dns_ports=dns_ports,
            sizes=sizes,
            filter_calls=children or is_headless,
            follow_children=children,
        )
        _raise_limits()
        kernel = stack.enter_context(Kernel(variant, tracefs))
        if dry_run:
            _dry_run(kernel, targets)
            return
        render, lines = open_way_out(form, output)
        stack.callback(lines.close)
        recorder = None if record is None else Recorder(record)
        if recorder is not None:
            stack.callback(recorder.close)
        Session(kernel, options, render, lines, recorder).run(targets)


def _check_rights(host: Host) -> None:
    """Before anything is tried, so that the message is about rights and not about the first thing refused."""
    if "SYS_ADMIN" in host.capabilities or {"BPF", "PERFMON"} <= host.capabilities:
        return
    who = "root without CAP_BPF and CAP_PERFMON" if os.geteuid() == 0 else "an ordinary user"
    raise HostCannotTraceError(
        f"tracing needs root, and this is {who}",
        remedy="sudo ebpfdns …   (a container: the capabilities in docs/deployment.md)",
    )


def _dry_run(kernel: Kernel, targets: list[Target]) -> None:
    """Attach everything once, and say so."""
    kernel.attach_host_wide()
    for target in targets:
        target.attach(kernel)
        coverage = target.coverage(kernel)
        missing = "; ".join(coverage["missing"]) or "nothing"
        click.echo(
            f"pid {target.pid}: {coverage['libc'] or 'no libc'}, "
            f"DNS packets {'seen' if coverage['wire'] else 'not seen'}, missing: {missing}",
            err=True,
        )


def _raise_limits() -> None:
    """Each target takes a descriptor; before 5.11 BPF maps count as locked memory."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for limit, wanted in ((resource.RLIMIT_NOFILE, (most, most)), (resource.RLIMIT_MEMLOCK, unlimited)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, wanted)
