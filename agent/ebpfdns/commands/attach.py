"""`ebpfdns attach`: trace processes that are running.

Owns: its options, and putting kernel, session and output together in the right order.
Must not know: how any of them works.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from ebpfdns.commands import shared_options
from ebpfdns.commands.tracing import open_kernel

if TYPE_CHECKING:
    from ebpfdns.observe.kernel import Kernel
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
@shared_options.tracing(
    click.option("--children", is_flag=True, help="Follow fork and clone too."),
    click.option("--output", default="-", show_default=True, help="File for the lines; - is stdout."),
)
@click.option("--dry-run", is_flag=True, help="Compile, load and attach; then exit.")
def command(*, pids: tuple[int, ...], children: bool, output: str, dry_run: bool, **shared: Any) -> None:  # noqa: ANN401 - as click hands them over
    """Trace running processes until Ctrl-C, --duration, or their end.

    Writes one JSON line for each lookup that is stuck, slow or failed: why it waits, and what helps.
    """
    wanted = shared_options.Tracing(**shared)
    trace(tuple(dict.fromkeys(pids)), wanted, output=output, children=children, dry_run=dry_run)


def trace(
    pids: tuple[int, ...], wanted: shared_options.Tracing, *, output: str, children: bool, dry_run: bool
) -> None:
    """Everything after the options: targets first (exit code 4), then rights (3), then the session."""
    from ebpfdns.observe.target import Target  # noqa: PLC0415 - `ebpfdns --help` needs none of it

    with contextlib.ExitStack() as stack:
        targets = [Target(pid) for pid in pids]
        for target in targets:
            stack.callback(target.close)
        # A probe finds a process by its first thread, which may have ended: then it is bound to no process.
        is_headless = any(target.process.alive_tid != target.pid for target in targets)
        kernel = open_kernel(stack, wanted, filter_calls=children or is_headless, follow_children=children)
        if dry_run:
            _dry_run(kernel, targets)
            return
        # Imported while the kernel verifies the programs.
        from ebpfdns.observe.session import Session  # noqa: PLC0415
        from ebpfdns.publish.ways_out import open_way_out  # noqa: PLC0415

        render, lines = open_way_out(wanted.form, output)
        stack.callback(lines.close)
        recorder = None
        if wanted.record is not None:
            from ebpfdns.observe.recording import Recorder  # noqa: PLC0415 - only where it is wanted

            recorder = Recorder(wanted.record)
            stack.callback(recorder.close)
        Session(kernel, wanted.options(), render, lines, recorder).run(targets)


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
