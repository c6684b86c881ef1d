"""Signals read like bytes from a descriptor, each with who sent it: the terminal, or some process.

Owns: signalfd(2) and the mask of blocked signals. Must not know: what a signal is taken for.
Make one before there are threads: they inherit the mask.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

INFO_BYTES = 128
SFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
MASK_BYTES = 128  # of a sigset_t
SI_KERNEL = 0x80
MOST_AT_ONCE = 16
_INFO = struct.Struct("=Iii")  # ssi_signo, ssi_errno, ssi_code
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Sent:
    """One signal. `is_kernels`: the kernel sent it, for the terminal, to the whole process group."""

    number: int
    is_kernels: bool


class SignalQueue:
    """From now on these signals wait here, instead of doing what they do."""

    def __init__(self, numbers: Iterable[int]) -> None:
        wanted = set(numbers)
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        mask = (ctypes.c_ubyte * MASK_BYTES)()
        for number in wanted:
            mask[(number - 1) // 8] |= 1 << (number - 1) % 8
        self.fd = _libc.signalfd(-1, mask, SFD_FLAGS)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "signalfd")

    def take(self) -> list[Sent]:
        """Those that have come."""
        try:
            raw = os.read(self.fd, INFO_BYTES * MOST_AT_ONCE)
        except BlockingIOError:
            return []
        found = (_INFO.unpack_from(raw, at) for at in range(0, len(raw), INFO_BYTES))
        return [Sent(number, code == SI_KERNEL) for number, _, code in found]

    def restore(self) -> None:
        """Let them do again what they did before."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def close(self) -> None:
        """No queue any more; what came and was not taken is forgotten."""
        self.take()
        os.close(self.fd)
        self.restore()
