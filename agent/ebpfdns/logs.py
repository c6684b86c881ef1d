"""The log on stderr: structlog, imported with the first line that is wanted.

Owns: level, form and destination of log lines. Must not know: event lines, which are the product (stdout).
structlog takes 0.1 s to import (it brings rich and asyncio), and most sessions never log a line.
"""

from __future__ import annotations

import sys

LEVELS = ("debug", "info", "warning", "error")
_threshold = LEVELS.index("warning")


def set_level(level: str) -> None:
    """Drop lines below this level."""
    global _threshold  # noqa: PLW0603 - one log a process, as there is one stderr
    _threshold = LEVELS.index(level)


def info(event: str, **facts: object) -> None:
    """Something that went as it should."""
    _write("info", event, facts)


def warning(event: str, **facts: object) -> None:
    """Something a person should know of, that does not end the session."""
    _write("warning", event, facts)


def _write(level: str, event: str, facts: dict[str, object]) -> None:
    if LEVELS.index(level) < _threshold:
        return
    import structlog  # noqa: PLC0415 - see above

    if not structlog.is_configured():
        is_for_people = sys.stderr.isatty()
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.dev.ConsoleRenderer() if is_for_people else structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
    getattr(structlog.get_logger("ebpfdns"), level)(event, **facts)
