"""The consumer's side of a BPF ring buffer, mapped into memory.

Owns: the two mappings and the protocol (kernel/bpf/ringbuf.c): positions count up for ever, each record has a
header of 8 bytes whose length carries a busy and a discard bit. Must not know: what is in a record.
"""

from __future__ import annotations

import mmap
import struct

BUSY, DISCARDED = 1 << 31, 1 << 30
HEADER_BYTES = 8
PAGE_BYTES = mmap.PAGESIZE


class Ring:
    """Reads what the programs have submitted, in order."""

    def __init__(self, fd: int, data_bytes: int) -> None:
        self.fd = fd
        self._mask = data_bytes - 1
        self._consumer = mmap.mmap(fd, PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The data pages are mapped twice in a row, so that no record is ever torn at the end.
        self._producer = mmap.mmap(
            fd, PAGE_BYTES + 2 * data_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE_BYTES
        )
        self._position = int(struct.unpack_from("=Q", self._consumer)[0])

    def read(self, most: int) -> list[bytes]:
        """Copies of up to `most` records; the kernel may then use their room again."""
        records: list[bytes] = []
        position, producer = self._position, self._producer
        end = int(struct.unpack_from("=Q", producer)[0])
        while position < end and len(records) < most:
            at = PAGE_BYTES + (position & self._mask)
            length = int(struct.unpack_from("=I", producer, at)[0])
            if length & BUSY:
                break
            size = length & ~(BUSY | DISCARDED)
            if not length & DISCARDED:
                records.append(producer[at + HEADER_BYTES : at + HEADER_BYTES + size])
            position += (size + HEADER_BYTES + 7) & ~7
        if position != self._position:
            self._position = position
            struct.pack_into("=Q", self._consumer, 0, position)
        return records

    def close(self) -> None:
        """Unmap; the map itself is closed by its owner."""
        self._consumer.close()
        self._producer.close()
