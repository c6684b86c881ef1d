"""What a Go program says of how it was built, in both forms that there are; nothing of broken ones."""

from __future__ import annotations

import struct

import pytest
from go_elf import BASE, BUILD_INFO_AT, DATA, Made, build_info, opened, program
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpfdns.observe import go_build_info
from ebpfdns.observe.go_build_info import MAGIC, BuildInfo

MODULE = (
    "path\texample.com/shop/cmd/till\nmod\texample.com/shop\tv1.2.3\th1:abc=\ndep\texample.com/x\tv0.1.0\n"
    'build\t-buildmode=exe\nbuild\t-ldflags="-X main.v=\\"1\\" -s"\nbuild\t-tags=netgo,osusergo\n'
    "build\tCGO_ENABLED=0\nbuild\tGOARCH=amd64\n"
)
SETTINGS = {
    "-buildmode": "exe",
    "-ldflags": '-X main.v="1" -s',
    "-tags": "netgo,osusergo",
    "CGO_ENABLED": "0",
    "GOARCH": "amd64",
}
ONE = {"main.main": Made(b"\x90" * 8)}


def by_pointers(version: str, module: str) -> bytes:
    """As Go before 1.18 did: pointers to strings, which are pointer and length."""
    at = BASE + DATA + BUILD_INFO_AT
    text = bytes(16) + module.encode() + bytes(16)
    strings = struct.pack("<4Q", at + 64, len(version), at + 64 + len(version), len(text))
    return MAGIC + b"\x08\x00" + struct.pack("<2Q", at + 32, at + 48) + strings + version.encode() + text


def read(contents: bytes) -> BuildInfo | None:
    with opened(contents) as elf:
        return go_build_info.read(elf)


@pytest.mark.parametrize("written", [build_info, by_pointers])
def test_version_module_and_settings_are_read(written) -> None:
    """Both forms say the same; quoted settings are told as they were given."""
    found = read(program(ONE, info=written("go1.27.3", MODULE)))
    assert found == BuildInfo(
        "go1.27.3", (1, 27, 3), "example.com/shop/cmd/till", "example.com/shop", SETTINGS
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.20", (1, 20, 0)),
        ("go1.22rc1", (1, 22, 0)),
        ("go1.23.2 (Red Hat 1.23.2-1.el9)", (1, 23, 2)),
        ("devel go1.28-1a2b3c Mon Nov 2 2026", (1, 28, 0)),
        ("go1.24.1 X:boringcrypto", (1, 24, 1)),
    ],
)
def test_versions_of_distributions_and_previews_are_understood(text: str, version: tuple[int, ...]) -> None:
    """What others add to the version does not hide it; a program without modules has no settings."""
    found = read(program(ONE, info=build_info(text, "")))
    assert found == BuildInfo(text, version)


def test_other_files_are_not_of_go() -> None:
    """No magic bytes, no version, or magic bytes at an odd place: not built by Go."""
    valid = build_info("go1.27.3", MODULE)
    assert read(program(ONE)) is None
    assert read(program(ONE, info=b"\0" + valid)) is None
    assert read(program(ONE, info=build_info("tinygo", MODULE))) is None
    assert read(program(ONE, info=MAGIC + b"\x04\x00" + bytes(100))) is None


@settings(max_examples=200)
@given(
    st.sampled_from([build_info, by_pointers]),
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(DATA, DATA + 0x1000),
)
def test_broken_build_information_is_none_or_less(written, changes, size) -> None:
    """Whatever bytes are changed and wherever the file ends, nothing is raised."""
    contents = bytearray(program(ONE, info=written("go1.27.3", MODULE)))
    for at, value in changes:
        contents[DATA + BUILD_INFO_AT + at] = value
    read(bytes(contents[:size]))
