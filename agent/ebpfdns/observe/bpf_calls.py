"""The bpf() system call: maps, programs, links, in the kernel's own terms.

Owns: the layout of bpf()'s attributes (include/uapi/linux/bpf.h) and turning its errors into OSError.
Must not know: which maps and programs there are.
Raw system calls, because BCC attaches cgroup programs in a way that outlives the agent, and because a start
from the cache then needs no compiler in memory at all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSCALL_NUMBER = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 321)

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD = range(6)
OBJ_GET_INFO, RAW_TRACEPOINT_OPEN, MAP_LOOKUP_BATCH, LINK_CREATE = 15, 17, 24, 28
ATTRIBUTES_BYTES = 144
LOG_BYTES = 1 << 20
NAME_BYTES = 16
MAP_TYPE_HASH, MAP_TYPE_ARRAY, MAP_TYPE_PROG_ARRAY = 1, 2, 3
MAP_TYPE_PERCPU_ARRAY, MAP_TYPE_LRU_HASH, MAP_TYPE_RINGBUF = 6, 9, 27
ANY = 0
NO_EXIST = 1
PERF_EVENT, TRACE_UPROBE_MULTI, UPROBE_MULTI_RETURN = 41, 48, 1

_libc = ctypes.CDLL(None, use_errno=True)


class VerifierError(OSError):
    """The kernel refused a program; `log` is what its verifier said."""

    def __init__(self, code: int, name: str, log: str) -> None:
        super().__init__(code, f"{name}: {os.strerror(code)}")
        self.log = log


def _bpf(command: int, attributes: bytes) -> int:
    """One bpf() call: its result, or OSError."""
    buffer = ctypes.create_string_buffer(attributes.ljust(ATTRIBUTES_BYTES, b"\0"), ATTRIBUTES_BYTES)
    result = int(_libc.syscall(SYSCALL_NUMBER, command, buffer, ATTRIBUTES_BYTES))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _bpf_in_place(command: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """As `_bpf`, but the kernel's answer is in `buffer`, and an error is a negative errno."""
    result = int(_libc.syscall(SYSCALL_NUMBER, command, buffer, len(buffer)))
    return result if result >= 0 else -ctypes.get_errno()


def create_map(  # noqa: PLR0917 - in the order of the kernel's own attributes
    kind: int, name: str, key_bytes: int, value_bytes: int, entries: int, flags: int
) -> int:
    """Make a map; its file descriptor."""
    label = name.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0")
    return _bpf(MAP_CREATE, struct.pack("=7I16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, label))


def load_program(kind: int, attach_type: int, name: str, instructions: bytes, licence: bytes) -> int:
    """Load a program; its file descriptor. VerifierError when the kernel refuses it."""
    code = ctypes.create_string_buffer(instructions, len(instructions))
    text = ctypes.create_string_buffer(licence)
    label = name.encode()[: NAME_BYTES - 1].ljust(NAME_BYTES, b"\0")

    def load(log_level: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            PROG_LOAD,
            struct.pack(
                "=IIQQIIQII16sII",
                kind,
                len(instructions) // 8,
                ctypes.addressof(code),
                ctypes.addressof(text),
                log_level,
                len(log) if log else 0,
                ctypes.addressof(log) if log else 0,
                0,
                0,
                label,
                0,
                attach_type,
            ),
        )

    try:
        return load(0, None)
    except OSError as error:
        log = ctypes.create_string_buffer(LOG_BYTES)
        try:
            return load(1, log)
        except OSError:
            raise VerifierError(
                error.errno or errno.EINVAL, name, log.value.decode(errors="replace")
            ) from error


def link_cgroup(program_fd: int, cgroup_fd: int, attach_type: int) -> int:
    """Attach to a cgroup by a link, which ends with its descriptor, however this process ends."""
    return _bpf(LINK_CREATE, struct.pack("=4I", program_fd, cgroup_fd, attach_type, 0))


def link_uprobes(
    program_fd: int, path: str, offsets: Sequence[int], cookies: Sequence[int], pid: int, *, is_return: bool
) -> int:
    """Probe many functions of a file by one link (6.6): in one process, or with pid 0 in all that map it."""
    count = len(offsets)
    text = ctypes.create_string_buffer(os.fsencode(path))
    places = ctypes.create_string_buffer(struct.pack(f"={count}Q", *offsets))
    numbers = ctypes.create_string_buffer(struct.pack(f"={count}Q", *cookies))
    addresses = (ctypes.addressof(text), ctypes.addressof(places), 0, ctypes.addressof(numbers))
    flags = UPROBE_MULTI_RETURN if is_return else 0
    head = struct.pack("=4I", program_fd, 0, TRACE_UPROBE_MULTI, 0)
    return _bpf(LINK_CREATE, head + struct.pack("=4Q3I", *addresses, count, flags, pid))


def link_event(program_fd: int, event_fd: int, cookie: int) -> int:
    """Run a program at a perf event, with a number of its own (5.15)."""
    return _bpf(LINK_CREATE, struct.pack("=4IQ", program_fd, event_fd, PERF_EVENT, 0, cookie))


def open_raw_tracepoint(program_fd: int, name: str) -> int:
    """Attach to a raw tracepoint; the descriptor holds it."""
    label = ctypes.create_string_buffer(name.encode())
    return _bpf(RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(label), program_fd))


def read_info(fd: int, size: int) -> bytes:
    """bpf_prog_info or bpf_map_info of a descriptor."""
    info = ctypes.create_string_buffer(size)
    _bpf(OBJ_GET_INFO, struct.pack("=IIQ", fd, size, ctypes.addressof(info)))
    return info.raw


class Map:
    """A map by its descriptor: keys and values are bytes."""

    def __init__(self, fd: int, key_bytes: int, value_bytes: int, entries: int) -> None:
        self.fd = fd
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        self.entries = entries
        self._key = ctypes.create_string_buffer(max(key_bytes, 1))
        self._value = ctypes.create_string_buffer(max(value_bytes, 1))
        key_at, value_at = ctypes.addressof(self._key), ctypes.addressof(self._value)
        self._element = ctypes.create_string_buffer(struct.pack("=IIQQQ", fd, 0, key_at, value_at, ANY), 32)
        self._key_only = ctypes.create_string_buffer(struct.pack("=IIQ", fd, 0, key_at), 16)
        self._batch: tuple[bytearray, bytearray] | None = None

    def get(self, key: bytes) -> bytes | None:
        """The value under `key`, or None."""
        self._key.raw = key
        result = _bpf_in_place(MAP_LOOKUP, self._element)
        return self._value.raw if result >= 0 else None

    def set(self, key: bytes, value: bytes) -> None:
        """Put a value under `key`."""
        self._key.raw, self._value.raw = key, value
        if (result := _bpf_in_place(MAP_UPDATE, self._element)) < 0:
            raise OSError(-result, os.strerror(-result))

    def add(self, key: bytes, value: bytes) -> None:
        """Put a value under `key`, which must not be there yet."""
        attributes = ctypes.create_string_buffer(
            struct.pack(
                "=IIQQQ", self.fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value), NO_EXIST
            ),
            32,
        )
        self._key.raw, self._value.raw = key, value
        if (result := _bpf_in_place(MAP_UPDATE, attributes)) < 0:
            raise OSError(-result, os.strerror(-result))

    def remove(self, key: bytes) -> bool:
        """Remove `key`; whether it was there."""
        self._key.raw = key  # MAP_DELETE is refused when anything stands behind the key
        result = _bpf_in_place(MAP_DELETE, self._key_only)
        if result not in (0, -errno.ENOENT):
            raise OSError(-result, os.strerror(-result))
        return result == 0

    def has_any(self) -> bool:
        """Whether there is an entry."""
        head = struct.pack("=IIQQ", self.fd, 0, 0, ctypes.addressof(self._key))
        return _bpf_in_place(MAP_NEXT_KEY, ctypes.create_string_buffer(head, 24)) >= 0

    def items(self) -> tuple[memoryview, memoryview, int]:
        """All keys, all values, and how many: (keys, values, count), valid until the next call.

        One or a few system calls (BPF_MAP_LOOKUP_BATCH, 5.6). One that moves meanwhile may be missed once.
        """
        if self._batch is None:
            self._batch = bytearray(self.key_bytes * self.entries), bytearray(self.value_bytes * self.entries)
        keys, values = self._batch
        keys_at = ctypes.addressof(ctypes.c_char.from_buffer(keys))
        values_at = ctypes.addressof(ctypes.c_char.from_buffer(values))
        position, total = ctypes.create_string_buffer(8), 0
        in_batch = 0
        while total < self.entries:
            attributes = ctypes.create_string_buffer(
                struct.pack(
                    "=QQQQIIQQ",
                    in_batch,
                    ctypes.addressof(position),
                    keys_at + total * self.key_bytes,
                    values_at + total * self.value_bytes,
                    self.entries - total,
                    self.fd,
                    0,
                    0,
                ),
                56,
            )
            result = _bpf_in_place(MAP_LOOKUP_BATCH, attributes)
            got = int(struct.unpack_from("=I", attributes, 32)[0])
            if result == -errno.ENOSPC and got == 0:
                break  # one bucket is larger than what is left: a full map, read as far as it goes
            if result < 0 and result not in (-errno.ENOENT, -errno.ENOSPC):
                break
            total += got
            if result == -errno.ENOENT:
                break
            in_batch = ctypes.addressof(position)
        return memoryview(keys), memoryview(values), total
