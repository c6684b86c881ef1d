"""Where a function returns: each RET and nothing else, on both machines; nothing when it is not sure."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.elf_symbols import MACHINES
from ebpfdns.observe.go_returns import CodeNotUnderstoodError, returns_in

AMD64, ARM64 = MACHINES["x86_64"], MACHINES["aarch64"]
START = 0x401000


def amd64(*pieces: str) -> bytes:
    return bytes.fromhex("".join(pieces))


def arm64(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def test_each_ret_is_found_on_amd64() -> None:
    """RET and RET n are; the same bytes inside of other instructions are not; padding is nothing."""
    code = amd64(
        "48b8c3c3c3c3c3c3c3c3",  # mov rax, 0xc3c3…
        "7403",  # je over the first return
        "c20800",  # ret 8
        "80fbc3",  # cmp bl, 0xc3
        "c3",  # ret
        "ffe0",  # jmp rax: a switch
        "0f0b",  # ud2, as after a panic
        "f3c3",  # rep ret
        "cccccccc00",
    )
    assert returns_in(code, START, AMD64) == (START + 12, START + 18, START + 23)


def test_code_that_is_not_understood_has_no_returns() -> None:
    """Bytes that are no instruction, an instruction that is cut off, another machine: refused in words."""
    for code in (amd64("c3", "06", "c3"), amd64("c3", "48b8c3c3")):
        with pytest.raises(CodeNotUnderstoodError, match="0x401001 is not understood"):
            returns_in(code, START, AMD64)
    with pytest.raises(CodeNotUnderstoodError, match="neither amd64 nor arm64"):
        returns_in(amd64("c3"), START, 0)


def test_a_function_that_goes_on_elsewhere_is_refused() -> None:
    """A jump to its own start (as after the stack has grown) is none out of it; one beyond its end is."""
    assert returns_in(amd64("c3", "ebfd"), START, AMD64) == (START,)
    with pytest.raises(CodeNotUnderstoodError, match="another function"):
        returns_in(amd64("c3", "e9ff000000"), START, AMD64)
    with pytest.raises(CodeNotUnderstoodError, match="another function"):
        returns_in(arm64(0xD65F03C0, 0x14000100), START, ARM64)


def test_each_ret_is_found_on_arm64() -> None:
    """RET is, by whatever register; a constant between instructions that looks like it is not."""
    code = arm64(
        0xD503201F,  # nop
        0x58000080,  # ldr x0, +16: two words
        0xD65F03C0,  # ret
        0x17FFFFFD,  # b -12
        0xD65F0220,  # ret x17
        0xD65F03C0,  # the constant
        0xD65F03C0,
        0xD65F03C0,  # ret
        0,
    )
    assert returns_in(code, START, ARM64) == (START + 8, START + 16, START + 28)


@given(st.binary(max_size=200), st.sampled_from([AMD64, ARM64]))
def test_any_bytes_are_refused_at_most(code: bytes, machine: int) -> None:
    """Returns lie within the code, and nothing else is raised."""
    try:
        found = returns_in(code, START, machine)
    except CodeNotUnderstoodError:
        return
    assert all(START <= at < START + len(code) for at in found)
