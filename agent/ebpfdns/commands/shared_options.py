"""Options that several commands have, spelled once, and what they mean together.

Owns: their names, defaults and help, and the values of one call. Must not know: which command has them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ebpfdns import logs
from ebpfdns.commands.durations import Duration
from ebpfdns.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.observe.plan import Options
    from ebpfdns.observe.sources import Sizes

Function = TypeVar("Function", bound="Callable[..., Any]")
Decorator = Any  # click's own are generic over what they decorate

#: lines for programs or for people
FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(("json", "pretty")),
    default="json",
    show_default=True,
    help="Of the lines.",
)

#: Of every command that traces, in the order of its help.
_WHAT_IS_TOLD = (
    click.option(
        "--stuck-after", type=Duration(), default="1s", show_default=True, help="Age of a stuck lookup."
    ),
    click.option(
        "--slow-after", type=Duration(), default="100ms", show_default=True, help="Age of a slow one."
    ),
    click.option("--all", "publish_all", is_flag=True, help="A line for every lookup and connect."),
)
_HOW = (
    click.option("--no-follow", is_flag=True, help="Leave the local daemons alone that are asked."),
    FORMAT,
    click.option("--duration", type=Duration(), help="Stop after this time."),
    click.option("--record", type=click.Path(path_type=Path), help="Keep what was observed, for replay."),
    click.option("--redact-names", is_flag=True, help="Hash the names that are looked up."),
    click.option(
        "--stats-every", type=Duration(), default="60s", show_default=True, help="Between stats lines."
    ),
    click.option("--ready-file", type=click.Path(path_type=Path), help="Created once every probe is live."),
    click.option(
        "--dns-port", "dns_ports", type=click.IntRange(1, 65535), multiple=True, help="Instead of 53."
    ),
    click.option(
        "--log-level", type=click.Choice(logs.LEVELS), default="warning", show_default=True, help="Of stderr."
    ),
)
_HIDDEN = (
    click.option(
        "--ring-pages", type=click.IntRange(1, 4096), default=256, hidden=True, help="Room for frames."
    ),
    click.option(
        "--max-lookups", type=click.IntRange(1, 65536), default=4320, hidden=True, help="Open at once."
    ),
    click.option(
        "--max-calls", type=click.IntRange(1, 65536), default=10_752, hidden=True, help="Threads at once."
    ),
    click.option(
        "--assume-kernel", "assumed_kernel", hidden=True, help="Do without what is newer than 5.10, say."
    ),
)


def tracing(*own: Decorator) -> Callable[[Function], Function]:
    """The options of a command that traces; its `own` stand where `--children` and `--output` belong."""

    def decorate(function: Function) -> Function:
        options: tuple[Decorator, ...] = (*_WHAT_IS_TOLD, *own, *_HOW, *_HIDDEN)
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """The values of those options, as click hands them over."""

    stuck_after: int
    slow_after: int
    publish_all: bool
    form: str
    duration: int | None
    record: Path | None
    redact_names: bool
    no_follow: bool
    stats_every: int
    ready_file: Path | None
    dns_ports: tuple[int, ...]
    log_level: str
    ring_pages: int
    max_lookups: int
    max_calls: int
    assumed_kernel: str | None

    def __post_init__(self) -> None:
        """What excludes each other is a usage error; the log is as loud as asked for from here on."""
        logs.set_level(self.log_level)
        if self.record is not None and self.redact_names:
            raise UsageError(
                "a recording holds names as they are: --record and --redact-names exclude each other",
                remedy="leave one of them out",
            )

    def options(self) -> Options:
        """For the session."""
        from ebpfdns.observe.plan import Options  # noqa: PLC0415 - `ebpfdns --help` needs none of it

        return Options(
            stuck_after_ns=self.stuck_after,
            # What was told of as stuck must be told of when it ends, so it must count as slow.
            slow_after_ns=min(self.slow_after, self.stuck_after),
            publish_all=self.publish_all,
            stats_every_ns=self.stats_every,
            duration_ns=self.duration,
            ready_file=self.ready_file,
            redact_key=os.urandom(16).hex() if self.redact_names else None,
            follow=not self.no_follow,
        )

    def sizes(self) -> Sizes:
        """Of the maps."""
        from ebpfdns.observe.sources import Sizes  # noqa: PLC0415 - see above

        return Sizes(ring_pages=self.ring_pages, lookups=self.max_lookups, calls=self.max_calls)
