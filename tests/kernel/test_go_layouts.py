"""Where Go keeps things is as the debug information says of programs that the oldest and newest Go build."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import go_dwarf
import pytest
from go_dwarf import GoDwarf, Value
from gotool import VERSIONS

from ebpfdns.observe import elf_symbols, go_layouts, go_members

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: No more than this fits into the registers of amd64: of what is larger, size and alignment count too.
ALWAYS_IN_REGISTERS = 9


def disagreements(path: Path, version: tuple[int, int]) -> list[str]:
    """What the table and the debug information of a program say differently."""
    with go_dwarf.opened(path) as units:
        runtime, net = GoDwarf(units["runtime"]), GoDwarf(units["net"])
        layout = go_layouts.layout_of(version, "amd64")
        assert layout is not None
        assert layout.is_verified
        found = {
            "goid": (layout.goid_offset, runtime.offset("runtime.g", "goid")),
            "parentGoid": (layout.parent_goid_offset, runtime.offset("runtime.g", "parentGoid")),
            "Err": (layout.dns_error_text_offset, runtime.offset("net.DNSError", "Err")),
            "Name": (layout.dns_error_text_offset + 16, runtime.offset("net.DNSError", "Name")),
            "Server": (layout.dns_error_text_offset + 32, runtime.offset("net.DNSError", "Server")),
            "IsTimeout": (layout.dns_error_text_offset + 48, runtime.offset("net.DNSError", "IsTimeout")),
            "IsTemporary": (layout.dns_error_text_offset + 49, runtime.offset("net.DNSError", "IsTemporary")),
            "IsNotFound": (layout.dns_error_text_offset + 50, runtime.offset("net.DNSError", "IsNotFound")),
        }
        wrong = [f"{name}: {ours}, not {theirs}" for name, (ours, theirs) in found.items() if ours != theirs]
        checked = [function for function in go_layouts.SIGNATURES if net.has(function)]
        assert len(checked) > 15
        for function in checked:
            for ours, theirs in zip(
                go_layouts.signature_of(function, version), net.parameters(function), strict=True
            ):
                # Debug information leaves out the results of functions that are also inlined.
                if theirs and [plain(value) for value in ours] != [plain(value) for value in theirs.values()]:
                    wrong.append(f"{function}: {ours}, not {theirs}")
    return wrong


def plain(value: go_layouts.Value | Value) -> tuple[int, ...]:
    """Registers, 0 for never; and size and alignment where they decide on places."""
    registers = value.registers or 0
    needs_stack = not registers or registers > ALWAYS_IN_REGISTERS
    return (registers, value.bytes, value.alignment) if needs_stack else (registers,)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_is_what_debug_information_says(go_program: Callable[..., Path], version: str) -> None:
    """Members of structs, and every argument and result of each function that a program has."""
    major, minor, _ = map(int, version.split("."))
    assert disagreements(go_program(version=version, cgo=True), (major, minor)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_members_are_found_without_reading_all_of_it(go_program: Callable[..., Path], version: str) -> None:
    """For a Go newer than the table: what a search finds is what is there; nothing of a stripped program."""
    major, minor, _ = map(int, version.split("."))
    layout = go_layouts.layout_of((major, minor), "amd64")
    assert layout is not None
    wanted = {"goid": layout.goid_offset, "parentGoid": layout.parent_goid_offset}
    for stripped, expected in ((False, wanted), (True, {})):
        fd = os.open(go_program(version=version, cgo=True, stripped=stripped), os.O_RDONLY)
        try:
            elf = elf_symbols.parse(fd)
            assert elf is not None
            assert go_members.offsets(elf, "runtime.g", "stack", ("goid", "parentGoid")) == expected
        finally:
            os.close(fd)
