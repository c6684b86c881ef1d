"""The file mappings of a process: the kernel's text understood, and the right file opened."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.errors import NoSuchTargetError
from ebpfdns.observe.mappings import Mapping, openable_path, parse_maps, read_maps

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="map_files needs CAP_CHECKPOINT_RESTORE")

#: any bytes but NUL, which no path has; a backslash is left out: the kernel writes it as it is
path_bytes = st.binary(min_size=1, max_size=40).map(
    lambda raw: b"/" + raw.replace(b"\0", b"a").replace(b"\\", b"b").strip(b" ")
)
mapping_values = st.builds(
    Mapping,
    start=st.integers(0, 2**47),
    end=st.integers(0, 2**47),
    permissions=st.sampled_from(["r-xp", "rw-s", "---p"]),
    offset=st.integers(0, 2**40),
    device=st.builds(os.makedev, st.integers(0, 4000), st.integers(0, 9999)),
    inode=st.integers(1, 2**63),
    path=path_bytes.filter(lambda raw: not raw.endswith(b" (deleted)")).map(os.fsdecode),
    is_deleted=st.booleans(),
)


def as_kernel_writes(mapping: Mapping) -> bytes:
    """One line of /proc/PID/maps."""
    device = f"{os.major(mapping.device):02x}:{os.minor(mapping.device):02x}"
    start = f"{mapping.start:08x}-{mapping.end:08x} {mapping.permissions} {mapping.offset:08x} {device}"
    path = os.fsencode(mapping.path).replace(b"\n", rb"\012") + (b" (deleted)" if mapping.is_deleted else b"")
    return f"{start} {mapping.inode}".encode().ljust(73) + path + b"\n"


@given(st.lists(mapping_values))
def test_what_the_kernel_writes_is_read_back(expected: list[Mapping]) -> None:
    """Spaces, newlines, any other bytes in a path, and its being deleted survive the way through the text."""
    assert parse_maps(b"".join(map(as_kernel_writes, expected))) == expected


@given(st.binary())
def test_any_bytes_are_read_without_failure(text: bytes) -> None:
    """What is not a line of this file means nothing."""
    assert all(mapping.inode > 0 for mapping in parse_maps(text))


def test_memory_without_a_file_is_left_out() -> None:
    """Anonymous memory, heap, stack and the vdso are no file mappings."""
    text = (
        b"7f00-7f01 rw-p 00000000 00:00 0 \n"
        b"7f01-7f02 rw-p 00000000 00:00 0                          [heap]\n"
        b"7f02-7f03 r-xp 00000000 00:00 0                          [vdso]\n"
        b"7f03-7f04 r-xp 00001000 fe:00 17                         /lib/x\n"
    )
    (only,) = parse_maps(text)
    assert (only.path, only.inode, only.offset, only.is_executable) == ("/lib/x", 17, 0x1000, True)


def test_a_process_that_is_gone_is_said_to_be() -> None:
    """Nobody's mappings cannot be read, and the message says why."""
    with pytest.raises(NoSuchTargetError, match="4194305 is gone"):
        read_maps(4194305)


def mapped(path: Path) -> Mapping:
    """The mapping of this file in this process, by its inode."""
    inode = path.stat().st_ino
    return next(mapping for mapping in read_maps(os.getpid()) if mapping.inode == inode)


def test_a_mapped_file_is_opened_by_its_name(tmp_path: Path) -> None:
    """As long as a name leads to the mapped file it is reached by that name, odd as it may be."""
    path = tmp_path / "a b\nc"
    path.write_bytes(b"x" * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
        assert openable_path(os.getpid(), mapped(path)) == f"/proc/{os.getpid()}/root{path}"


@needs_root
def test_a_replaced_file_is_still_reached(tmp_path: Path) -> None:
    """After a package upgrade the name leads to another file: the mapped one is opened all the same."""
    path = tmp_path / "libc.so.6"
    path.write_bytes(b"old" + bytes(4093))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
        before = mapped(path)
        (tmp_path / "new").write_bytes(b"new" + bytes(4093))
        (tmp_path / "new").rename(path)
        after = next(mapping for mapping in read_maps(os.getpid()) if mapping.start == before.start)
        assert after.is_deleted
        reached = openable_path(os.getpid(), after)
        assert reached is not None
        with open(reached, "rb") as found:  # noqa: PTH123 - a magic link
            assert found.read(3) == b"old"


def test_a_file_that_cannot_be_reached_has_no_path(tmp_path: Path) -> None:
    """A mapping that is gone, with a name that leads to another file or nowhere, gives nothing to open."""
    (tmp_path / "x").write_bytes(b"x")
    inode = (tmp_path / "x").stat().st_ino
    gone = Mapping(1, 2, "r-xp", 0, 0, inode + 1, str(tmp_path / "x"), is_deleted=False)
    assert openable_path(os.getpid(), gone) is None
    nowhere = Mapping(1, 2, "r-xp", 0, 0, inode, str(tmp_path / "y"), is_deleted=False)
    assert openable_path(os.getpid(), nowhere) is None
