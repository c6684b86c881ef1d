"""System calls and the memory behind their arguments: texts of /proc and bytes of this very process."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.memory import read_memory, read_text
from ebpfdns.observe.syscalls import MAX_FDS, UNKNOWN, BlockedCall, parse_call, waited_fds

if TYPE_CHECKING:
    from collections.abc import Iterator

STACK = "0x7ffd00001000 0x7f0000002000"


def nothing(_address: int, _size: int) -> bytes:
    """Memory that may not be read."""
    return b""


@pytest.mark.parametrize(
    ("machine", "number", "name"),
    [
        ("x86_64", 7, "poll"),
        ("x86_64", 232, "epoll_wait"),
        ("x86_64", 202, "futex"),
        ("aarch64", 73, "ppoll"),
        ("aarch64", 22, "epoll_pwait"),
        ("aarch64", 98, "futex"),
        ("aarch64", 7, None),
        ("x86_64", 441, "epoll_pwait2"),
        ("x86_64", 9999, None),
        ("riscv64", 73, None),
    ],
)
def test_a_number_means_a_call_of_its_machine(machine: str, number: int, name: str | None) -> None:
    """The same number is another call elsewhere; one that is not known has no name, but keeps its number."""
    call = parse_call(f"{number} 0x1 0x2 0x3 0x4 0x5 0xffffffffffffffff {STACK}\n", machine)
    assert call == BlockedCall(name, number, (1, 2, 3, 4, 5, 2**64 - 1))


def test_a_running_thread_is_in_no_call() -> None:
    """What runs is said to run; what was stopped outside of a call, or may not be known, is not guessed."""
    assert parse_call("running\n") == BlockedCall("running", None, ())
    assert parse_call(f"-1 {STACK}\n") == UNKNOWN
    assert parse_call("") == UNKNOWN


def test_a_32_bit_program_is_not_misread() -> None:
    """With a stack below 4 GiB the numbers are those of another table: 7 is waitpid there, not poll."""
    call = parse_call("7 0x1 0x2 0x3 0x4 0x5 0x6 0xffb01000 0xf7f02000\n", "x86_64")
    assert (call.name, call.number) == (None, 7)


@given(st.text())
def test_any_text_is_a_call_or_unknown(text: str) -> None:
    """No text makes the parser fail."""
    assert len(parse_call(text).arguments) in {0, 6}


@given(st.lists(st.integers(-1, 2**31 - 1), max_size=20), st.integers(0, 7))
def test_the_descriptors_of_a_poll_are_read_from_memory(fds: list[int], cut: int) -> None:
    """Each descriptor but the negative ones is waited for; a structure that was cut off is left out."""
    raw = b"".join(struct.pack("<iHH", fd, 1, 0) for fd in fds) + bytes(cut)
    call = BlockedCall("poll", 7, (4096, len(fds), 5000, 0, 0, 0))
    assert waited_fds(call, lambda _address, size: raw[:size]) == [fd for fd in fds if fd >= 0]


@given(st.lists(st.frozensets(st.integers(0, 199), max_size=10), min_size=3, max_size=3))
def test_the_descriptors_of_a_select_are_in_any_of_its_sets(sets: list[frozenset[int]]) -> None:
    """Reading, writing and exceptional conditions are all waits."""
    memory = {
        4096 * i: sum(1 << fd for fd in wanted).to_bytes(128, "little") for i, wanted in enumerate(sets, 1)
    }
    call = BlockedCall("select", 23, (200, 4096, 8192, 12288, 0, 0))
    assert waited_fds(call, lambda address, size: memory[address][:size]) == sorted(frozenset().union(*sets))


@pytest.mark.parametrize("name", ["poll", "select", "recvfrom", "futex", "running", None])
def test_without_memory_no_descriptor_is_invented(name: str | None) -> None:
    """Where memory may not be read only what stands in the arguments themselves is told."""
    call = BlockedCall(name, 1, (9, 2**64 - 1, 2**64 - 1, 0, 0, 0) if name != "running" else ())
    assert waited_fds(call, nothing) == ([9] if name == "recvfrom" else [])


def test_absurd_counts_are_bounded() -> None:
    """A poll of 2^64 descriptors does not make the agent ask for as much memory."""
    asked: list[int] = []
    call = BlockedCall("poll", 7, (4096, 2**64 - 1, 0, 0, 0, 0))

    def read(_address: int, size: int) -> bytes:
        asked.append(size)
        return b""

    assert waited_fds(call, read) == []
    assert asked == [MAX_FDS * 8]


@given(st.binary(max_size=200), st.integers(1, 100))
def test_a_text_ends_at_its_nul_or_at_the_limit(content: bytes, limit: int) -> None:
    """A text in memory is read up to its NUL, whatever its bytes, and no further than the limit."""
    kept = ctypes.create_string_buffer(content)
    expected = content.partition(b"\0")[0][:limit]
    assert read_text(os.getpid(), ctypes.addressof(kept), limit) == expected


@pytest.fixture
def last_page() -> Iterator[int]:
    """The address of a page that is followed by nothing."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size, read_write, private_anonymous = 2 * mmap.PAGESIZE, 3, 0x22
    address = libc.mmap(None, ctypes.c_size_t(size), read_write, private_anonymous, -1, ctypes.c_long(0))
    libc.munmap(ctypes.c_void_p(address + mmap.PAGESIZE), ctypes.c_size_t(mmap.PAGESIZE))
    yield address
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE))


@pytest.mark.parametrize(("text", "found"), [(b"name.test\0", b"name.test"), (b"name.test", None)])
def test_at_the_end_of_memory_a_text_must_have_its_end(
    last_page: int, text: bytes, found: bytes | None
) -> None:
    """A name in the last bytes before a hole is read, if it ends there; else it is no text."""
    address = last_page + mmap.PAGESIZE - len(text)
    ctypes.memmove(address, text, len(text))
    assert read_text(os.getpid(), address, 256) == found


@pytest.mark.parametrize("address", [0, 1, 2**47, 2**63, 2**64 - 1, -5])
def test_a_bad_address_has_nothing(address: int) -> None:
    """Where there is no memory there are no bytes, and no text."""
    assert read_memory(os.getpid(), address, 16) == b""
    assert read_text(os.getpid(), address, 16) is None


def test_a_process_that_is_gone_has_nothing() -> None:
    """Nobody's memory cannot be read."""
    assert read_text(4194305, 4096, 16) is None
