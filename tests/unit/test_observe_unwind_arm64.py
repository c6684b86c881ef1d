"""Stacks of arm64, as a real program leaves them: run by qemu, read from its core file."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.observe import code_names, elf_symbols, unwind_rules, unwind_tables
from ebpfdns.observe.user_stack import MACHINES, Stack, unwind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.observe.elf_symbols import ElfFile
    from ebpfdns.observe.unwind_rules import Rules

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"

pytestmark = pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason="apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static",
)

#: Calls of every kind: with a large frame, one that grows while it runs, back from libc, and through raise.
DEEP = """
#include <signal.h>
#include <stdlib.h>
#include <string.h>
__attribute__((noinline)) int inner(volatile int *n) {
  char room[300];
  memset(room, *n, sizeof room);
  raise(SIGSEGV);
  return room[*n];
}
__attribute__((noinline)) int middle(int count) {
  volatile int n = count;
  int *more = __builtin_alloca(count * 16);
  more[0] = inner(&n);
  return more[0] + n;
}
__attribute__((noinline)) int compare(const void *a, const void *b) { return middle(*(int *)a) + *(int *)b; }
int main(void) {
  int numbers[] = {7, 3};
  qsort(numbers, 2, sizeof(int), compare);
  return numbers[0];
}
"""
OF_THE_PROGRAM = ["inner", "middle", "compare"]
CORE_BYTES = 64 << 20
PT_LOAD, PT_NOTE, NT_PRSTATUS = 1, 4, 1
REGISTERS_AT = 112  # in struct elf_prstatus
SP, PC = 31, 32


def segments(core: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, address, content) of each part of an ELF core file."""
    table_at, size, count = (
        struct.unpack_from("<Q", core, 32)[0],
        *struct.unpack_from("<HH", core, 54),
    )
    for number in range(count):
        kind, _, offset, address, _, bytes_ = struct.unpack_from("<IIQQQQ", core, table_at + number * size)
        yield kind, address, core[offset : offset + bytes_]


def registers(core: bytes) -> tuple[int, ...]:
    """x0 to x30, the stack pointer and the program counter of the first thread."""
    (notes,) = (content for kind, _, content in segments(core) if kind == PT_NOTE)
    at = 0
    while at < len(notes):
        name_bytes, content_bytes, kind = struct.unpack_from("<III", notes, at)
        content_at = at + 12 + -(-name_bytes // 4) * 4
        if kind == NT_PRSTATUS:
            return struct.unpack_from("<33Q", notes, content_at + REGISTERS_AT)
        at = content_at + -(-content_bytes // 4) * 4
    raise AssertionError("no registers in the core file")


class Code:
    """The code of one program that is mapped where its file says."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf

    def module_of(self, address: int) -> str | None:
        return "deep" if 0x400000 <= address < 0x500000 else None

    def rules_at(self, address: int) -> Rules | None:
        assert self._elf.unwind_header_address is not None
        program = unwind_tables.find_program(self._elf.read_at, self._elf.unwind_header_address, address)
        return unwind_rules.rules_at(program, address) if program else None


def build(folder: Path, *flags: str) -> Path:
    source = folder / "deep.c"
    source.write_text(DEEP)
    words = [COMPILER, "-O2", "-static", "-Wl,--eh-frame-hdr", *flags, "-o", folder / "deep", source]
    subprocess.run(words, check=True)
    return folder / "deep"


def core_of(program: Path) -> bytes:
    """What the program leaves behind; the files go."""

    def allow_core() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (CORE_BYTES, CORE_BYTES))

    subprocess.run([EMULATOR, program], cwd=program.parent, preexec_fn=allow_core, check=False)
    (left,) = program.parent.glob("qemu_deep_*.core")
    content = left.read_bytes()
    for file in program.parent.glob("*core"):
        file.unlink()
    return content


@pytest.mark.parametrize("flags", [(), ("-fomit-frame-pointer",), ("-mbranch-protection=standard",)])
def test_a_stack_of_arm64(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """From two registers and the stack alone every function is found, from raise to the program's start."""
    program = build(tmp_path, *flags)
    core = core_of(program)
    known = registers(core)
    sp, pc = known[SP], known[PC]
    (memory,) = (
        content[sp - address :]
        for kind, address, content in segments(core)
        if kind == PT_LOAD and address <= sp < address + len(content)
    )
    fd = os.open(program, os.O_RDONLY)
    try:
        elf = elf_symbols.parse(fd, of_any_machine=True)
        assert elf is not None
        code: Any = Code(elf)
        frames = list(unwind(MACHINES["aarch64"], pc, Stack(sp, memory), code))
        found = code_names.functions_at(elf, [frame.pc - 1 for frame in frames])
    finally:
        os.close(fd)
    names = [function.name if (function := found[frame.pc - 1]) else None for frame in frames]
    at = names.index("inner")
    assert names[at - 1] == "raise"
    assert names[at : at + 3] == OF_THE_PROGRAM
    assert "qsort_r" in names[at + 3 :]
    assert names[names.index("main") :] == ["main", "__libc_start_call_main", *names[-2:]]
    assert names[-1] == "_start"
    assert [frame.sp for frame in frames] == sorted(frame.sp for frame in frames)
