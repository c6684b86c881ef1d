"""Go's own resolver in one process: found in the program that it runs, and probed.

Owns: which program was looked at last, and whether its lookups are seen.
Must not know: where functions are (`go_program`), or what probes do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.observe import go_probes, go_program

if TYPE_CHECKING:
    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.kernel import Kernel


class GoAttachment:
    """Of a process, through all the programs that it runs one after the other."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looked_at: tuple[int, int] | None = None
        self._was_seen = False
        self.program: GoProgram | None = None

    def attach(self, kernel: Kernel, path: str, alive_tid: int) -> list[str]:
        """Probe the program at this path, if it is Go's; what could not be. Twice is once."""
        try:
            status = Path(path).stat()
        except OSError:  # it has ended, or may not be looked at, which is told
            return []
        if (status.st_dev, status.st_ino) == self._looked_at:
            return []
        self._looked_at = (status.st_dev, status.st_ino)
        self.program = go_program.find(path)
        failures: list[str] = []
        if self.program is not None:
            failures = [*self.program.missing, *kernel.attach_go(self.program, self._pid, alive_tid)]
        is_seen = self.program is not None and not failures and go_probes.NEEDED in self.program.functions
        if is_seen or self._was_seen:
            kernel.maps.tell_resolver(self._pid, is_go=is_seen)
        self._was_seen = is_seen
        return failures

    def forget(self) -> None:
        """It runs another program."""
        self.program = self._looked_at = None
