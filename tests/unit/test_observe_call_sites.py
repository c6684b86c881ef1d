"""Callers without call frame information: proven by the call in front of a return address, or not told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.call_sites import Site, call_target, waiting_call

POLL = range(0x5000, 0x5050)
#: In the text below: end of an instruction → the bytes that end there.
CODE = {
    0x5020: bytes.fromhex("9090 e8 00000000"),  # in poll: a call to what makes the system call
    0x6007: b"\x90\x90\xe8" + (0x5000 - 0x6007).to_bytes(4, "little", signed=True),  # calls poll
    0x6107: b"\x90\x90\xe8"
    + (0x5010 - 0x6107).to_bytes(4, "little", signed=True),  # calls into poll's middle
    0x6207: bytes.fromhex("90 ff15 00100000 00")[:7],  # calls through a table
    0x6307: bytes.fromhex("9090 9090 90 ffd0"),  # calls through a register
    0x6407: bytes.fromhex("90909090 909090"),  # no call
}


def read_code(address: int, size: int) -> bytes:
    return CODE.get(address + size, b"")


def start_of_wait(address: int) -> int | None:
    return POLL.start if address in POLL else None


def caller(*words: int) -> tuple[Site, Site] | None:
    memory = b"".join(word.to_bytes(8, "little") for word in words)
    return waiting_call(memory, "x86_64", start_of_wait, read_code)


def test_the_caller_of_the_waiting_function_is_found() -> None:
    """What lies between and is no return address, or that of an inner function, is passed over."""
    assert caller(0x6307, 7, 0x5020, 0x6407, 0x5008, 0x6007, 0x6207) == (Site(16, 0x5020), Site(40, 0x6007))


@pytest.mark.parametrize(
    "words",
    [
        (),
        (0x6007,),  # nobody waits
        (0x5020,),  # the caller is not on the stack
        (0x5020, 0x6107),
        (0x5020, 0x6207),  # from another file
        (0x5020, 0x6307),
        (0x5020, 0x6207, 0x6007),  # the next one counts, not a later one
        (0x5020, *[0] * 100, 0x6007),  # far away
    ],
)
def test_without_proof_there_is_no_caller(words: tuple[int, ...]) -> None:
    """Only a call to the very start of the waiting function shows who called it."""
    assert caller(*words) is None


@pytest.mark.parametrize(
    ("code", "target"),
    [
        ("9090 e8 f9ffffff", 0x1000 - 7),
        ("90909090 90 ffd0", 0),  # call *%rax
        ("90909090 41 ffd4", 0),  # call *%r12
        ("90909090 ff50 08", 0),  # call *8(%rax)
        ("90 ff15 00000000", 0),  # call *0(%rip)
        ("90 ff90 00010000", 0),  # call *256(%rax)
        ("90909090 90 ff13", 0),  # call *(%rbx)
        ("90909090 909090", None),
        ("90909090 90 ffe0", None),  # a jump
    ],
)
def test_calls_of_amd64(code: str, target: int | None) -> None:
    """Each form of a call that compilers write is known; of a direct one, where it leads."""
    raw = bytes.fromhex(code)
    assert len(raw) == 7
    assert call_target(0x1000, "x86_64", lambda _address, size: raw[-size:]) == target


@pytest.mark.parametrize(
    ("instruction", "target"),
    [
        (0x97FF_FFFF, 0x1000 - 8),  # bl -4
        (0x9400_0010, 0x1000 + 60),
        (0xD63F_0060, 0),  # blr x3
        (0xD65F_03C0, None),  # ret
        (0x1400_0010, None),  # b
    ],
)
def test_calls_of_arm64(instruction: int, target: int | None) -> None:
    """`bl` leads somewhere, `blr` is a call, other instructions are none."""
    raw = instruction.to_bytes(4, "little")
    assert call_target(0x1000, "aarch64", lambda _address, _size: raw) == target


@given(st.binary(max_size=600), st.sampled_from(["x86_64", "aarch64"]), st.binary(max_size=7))
def test_any_stack_can_be_gone_through(memory: bytes, machine: str, code: bytes) -> None:
    """Whatever bytes: no failure, and places inside the stack."""
    found = waiting_call(memory, machine, lambda address: address & ~0xFF, lambda _at, size: code[:size])
    assert found is None or all(0 <= site.offset < len(memory) for site in found)
