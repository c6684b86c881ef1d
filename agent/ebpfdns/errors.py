"""Every error a user can meet: what happened, the likely reason, and the command that fixes it.

Owns: the exception classes and their exit codes (contract, section 1).
Must not know: click, bcc, or where the message is printed (`cli.py` does that, in one place).
"""

from __future__ import annotations


class EbpfdnsError(Exception):
    """A failure with a remedy. `str(error)` says what happened; `remedy` what to type next."""

    exit_code = 1

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        """An error of a child process keeps its remedy on its way to the parent."""
        return (_remade, (type(self), str(self), self.remedy))


class UsageError(EbpfdnsError):
    """The command line asks for something that makes no sense (exit code 2)."""

    exit_code = 2


class HostCannotTraceError(EbpfdnsError):
    """This kernel, these rights or these packages cannot do it (exit code 3)."""

    exit_code = 3


class NoSuchTargetError(EbpfdnsError):
    """There is no process with this pid (exit code 4)."""

    exit_code = 4


class CommandRefusedError(EbpfdnsError):
    """The command of `run` is there, but cannot be run (exit code 126, as in a shell)."""

    exit_code = 126


class CommandNotFoundError(EbpfdnsError):
    """There is no such command (exit code 127, as in a shell)."""

    exit_code = 127


def _remade(kind: type[EbpfdnsError], what: str, remedy: str | None) -> EbpfdnsError:
    """Unpickle an error."""
    return kind(what, remedy=remedy)
