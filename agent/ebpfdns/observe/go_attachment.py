"""Go's own resolver in one process: found in the program that it runs and in its libraries, and probed.

Owns: which files were looked at, and whether lookups are seen.
Must not know: where functions are (`go_program`), or what probes do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe import go_probes, go_program, mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.observe.go_program import GoProgram
    from ebpfdns.observe.kernel import Kernel

_Key = tuple[int, int]  # device and inode
MAX_OTHERS = 4096
#: (device, inode, mtime, size) of files without Go in them: each library is read once for all processes.
_others: set[tuple[int, int, int, int]] = set()


MAKERS_UNKNOWN = (
    "which goroutine asks what: before Go 1.21 none knows who made it, so questions are lookups of their own"
)


class GoAttachment:
    """Of a process, through all the programs that it runs one after the other."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._looked_at: _Key | None = None  # the program that it runs, or is about to
        self._libraries: set[_Key] = set()
        self._is_seen = self._is_seen_in_libraries = self._was_seen = False
        self.program: GoProgram | None = None  # or the first of its libraries that has Go in it

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
        self._is_seen, missing = self._probe(kernel, self.program, alive_tid)
        self._tell(kernel)
        return missing

    def attach_mapped(self, kernel: Kernel, alive_tid: int) -> list[str]:
        """The same of its libraries: those that Go built (c-shared), and plugins."""
        missing: list[str] = []
        for path in self._new_libraries(alive_tid):
            found = _found(path)
            is_seen, failures = self._probe(kernel, found, alive_tid)
            self._is_seen_in_libraries |= is_seen
            self.program = self.program or found
            missing += failures
        self._tell(kernel)
        return missing

    @property
    def is_seen(self) -> bool:
        """Whether the kernel was told that this very process's lookups are those of goroutines."""
        return self._was_seen

    def forget(self) -> None:
        """It runs another program."""
        self.program = self._looked_at = None
        self._libraries.clear()
        self._is_seen = self._is_seen_in_libraries = False

    def _probe(self, kernel: Kernel, found: GoProgram | None, alive_tid: int) -> tuple[bool, list[str]]:
        """Whether its lookups are seen, and what is missing.

        A function that was not understood, or a Go newer than what was checked, is told of, and is all.
        """
        if found is None:
            return False, []
        failures = kernel.attach_go(found, self._pid, alive_tid)
        is_seen = not failures and go_probes.NEEDED in found.functions
        missing = [*found.missing, *failures]
        if is_seen and found.layout is not None and found.layout.parent_goid_offset is None:
            missing.append(MAKERS_UNKNOWN)
        return is_seen, missing

    def _new_libraries(self, alive_tid: int) -> Iterator[str]:
        """The files that are mapped as code, beside the program, which were not looked at yet."""
        try:
            mapped = mappings.read_maps(alive_tid)
        except NoSuchTargetError:  # the caller finds that out for itself
            return
        for mapping in mapped:
            key = (mapping.device, mapping.inode)
            if mapping.is_executable and key not in self._libraries and key != self._looked_at:
                self._libraries.add(key)
                path = mappings.openable_path(alive_tid, mapping)
                if path is not None:
                    yield path

    def _tell(self, kernel: Kernel) -> None:
        is_seen = self._is_seen or self._is_seen_in_libraries
        if is_seen or self._was_seen:
            kernel.maps.tell_resolver(self._pid, is_go=is_seen)
        self._was_seen = is_seen


def _found(path: str) -> GoProgram | None:
    """The Go in a library."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    version = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
    if version in _others:
        return None
    found = go_program.find(path)
    if found is None:
        if len(_others) >= MAX_OTHERS:
            _others.clear()
        _others.add(version)
    return found
