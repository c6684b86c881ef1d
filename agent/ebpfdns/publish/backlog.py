"""Lines that are not written yet: bounded in bytes, in order, and never cut.

Owns: which lines wait, how far the first one has been written, and how many were refused for want of room.
Must not know: threads, file descriptors, or what is in a line.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a waiting line costs beside its bytes: the object's header and its place in the queue.
LINE_OVERHEAD_BYTES = 48


class Backlog:
    """A queue of lines with a limit. What does not fit is counted; what is half written is finished first.

    Once full it refuses everything until half of it is free again: one gap instead of many small ones.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._lines: deque[bytes] = deque()
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._head_done_bytes = 0
        self._dropped = 0
        self._refusing = False

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, lines: Iterable[bytes]) -> None:
        """Append what fits; from the first line that does not, count instead."""
        refusing = self.refusing
        for line in lines:
            cost_bytes = len(line) + LINE_OVERHEAD_BYTES
            if refusing or self._used_bytes + cost_bytes > self._limit_bytes:
                self._refusing = refusing = True
                self._dropped += 1
                continue
            self._used_bytes += cost_bytes
            self._lines.append(line)

    def add_first(self, line: bytes) -> None:
        """Put one line before all others, limit or not; only while none is half written."""
        self._used_bytes += len(line) + LINE_OVERHEAD_BYTES
        self._lines.appendleft(line)

    @property
    def refusing(self) -> bool:
        """Whether the next line would be counted instead of kept."""
        if self._refusing and not self.half_full:
            self._refusing = False
        return self._refusing

    @property
    def half_full(self) -> bool:
        """Whether less than half of the room is left."""
        return self._used_bytes > self._limit_bytes // 2

    def take_dropped(self) -> int:
        """Lines refused since the last call; 0 while refusing, when a line about it would be refused too."""
        if self.refusing:
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def chunk(self, limit_bytes: int, limit_lines: int | None = None) -> bytes:
        """The next bytes to write: whole lines up to the limit, or a piece of one that is longer."""
        if not self._lines or limit_lines == 0:
            return b""
        head = self._lines[0][self._head_done_bytes :]
        if len(head) >= limit_bytes:
            return head[:limit_bytes]
        parts, size_bytes = [head], len(head)
        for index, line in enumerate(self._lines):
            if index == 0:
                continue
            size_bytes += len(line)
            if size_bytes > limit_bytes or index == limit_lines:
                break
            parts.append(line)
        return b"".join(parts)

    def advance(self, written_bytes: int) -> int:
        """Forget what has been written; how many lines that finished."""
        finished = 0
        while written_bytes:
            left_bytes = len(self._lines[0]) - self._head_done_bytes
            if written_bytes < left_bytes:
                self._head_done_bytes += written_bytes
                break
            written_bytes -= left_bytes
            self._used_bytes -= len(self._lines.popleft()) + LINE_OVERHEAD_BYTES
            self._head_done_bytes = 0
            finished += 1
        return finished

    @property
    def fragment_bytes(self) -> int:
        """How much of the first line has been written."""
        return self._head_done_bytes

    def restart_line(self) -> None:
        """Write the first line again from its start: its fragment was taken back, or left in another file."""
        self._head_done_bytes = 0
