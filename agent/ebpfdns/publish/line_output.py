"""What the pipeline needs of an output, and one that keeps lines in memory.

Owns: the interface between pipeline and output.
Must not know: files, threads, what is in a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


class LineOutput(Protocol):
    """Where lines go; `output.Output` is the real one, `NullOutput` the one of tests."""

    @property
    def closed(self) -> bool:
        """Whether the reader has gone away: the agent's sign to end quietly."""

    @property
    def failure(self) -> str | None:
        """The error that holds up writing now, such as ENOSPC; None when it is only the reader's pace."""

    @property
    def refusing(self) -> bool:
        """Whether the next line would be dropped."""

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Take lines, each with its newline; never wait for long."""

    def take_dropped(self) -> int:
        """Lines dropped since the last call, as soon as a line about it would be taken."""

    def reopen(self) -> None:
        """Go on in a new file of the same name."""

    def flush(self, deadline_s: float) -> int:
        """Wait for all lines to be written, up to the deadline; how many are not."""

    def close(self) -> None:
        """Write no more."""


class NullOutput:
    """Keeps lines in memory: `lines` is all that was written."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.closed = False
        self.failure: str | None = None
        self.refusing = False

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Keep them."""
        self.lines.extend(lines)

    def take_dropped(self) -> int:
        """Nothing is ever dropped."""
        return 0

    def reopen(self) -> None:
        """Nothing to open."""

    def flush(self, deadline_s: float) -> int:  # noqa: ARG002 - the protocol's signature
        """Nothing waits."""
        return 0

    def close(self) -> None:
        """Nothing to close."""
