"""Programs as files: found as a shell finds them, and known by the code that will run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from ebpfdns.errors import CommandNotFoundError, CommandRefusedError, UsageError
from ebpfdns.lab import packet_log
from ebpfdns.observe import libraries, program_files, users

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folders(tmp_path: Path) -> dict[bytes, bytes]:
    """PATH over two folders: in the first `tool` may not be run, in the second it may."""
    for name, mode in (("one", 0o644), ("two", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tool").touch(mode)
    (tmp_path / "one" / "plain").touch(0o644)
    (tmp_path / "one" / "folder").mkdir()
    return {b"PATH": os.fsencode(f"{tmp_path}/one:{tmp_path}/two")}


def test_the_first_that_can_be_run_is_the_command(folders: dict[bytes, bytes], tmp_path: Path) -> None:
    """PATH is searched in order, past files that may not be run; a name with a slash is taken as it is."""
    assert program_files.found_command("tool", folders) == str(tmp_path / "two/tool")
    assert program_files.found_command(str(tmp_path / "two/tool"), {}) == str(tmp_path / "two/tool")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("none", CommandNotFoundError), ("plain", CommandRefusedError), ("folder", CommandNotFoundError)],
)
def test_what_cannot_be_run_is_told_apart(
    folders: dict[bytes, bytes], name: str, kind: type[Exception]
) -> None:
    """Not there is one thing, not to be run another, as in a shell; a folder is no command."""
    with pytest.raises(kind):
        program_files.found_command(name, folders)


def test_a_scripts_interpreter_is_what_runs(tmp_path: Path) -> None:
    """Through `#!` lines, links and interpreters of interpreters; never without end."""
    inner, outer, circle = tmp_path / "inner", tmp_path / "outer", tmp_path / "circle"
    inner.write_text(f"#!{sys.executable} -P\n")
    outer.write_text(f"#! {inner}\n")
    circle.write_text(f"#!{circle}\n")
    assert program_files.running_program(str(outer)) == os.path.realpath(sys.executable)
    assert program_files.running_program(str(circle)) == str(circle)
    assert program_files.running_program(str(tmp_path / "none")) == str(tmp_path / "none")


def test_the_environment_is_the_one_that_was_given() -> None:
    """What Python has added to its own environment is not in it."""
    os.environ["ADDED_AFTER_THE_START"] = "1"
    try:
        found = program_files.own_environment()
    finally:
        del os.environ["ADDED_AFTER_THE_START"]
    assert b"ADDED_AFTER_THE_START" not in found
    assert found[b"PATH"] == os.environb[b"PATH"]


def test_a_program_will_have_the_libc_of_its_loader() -> None:
    """What a dynamic program of this machine will have mapped is known from its file."""
    known = [libraries.Library("glibc", "2.36", "/libc.so.6", 1, 2, {"getaddrinfo": 7}, None)]
    found = libraries.find_in_program(PYTHON, libraries.loader_of(PYTHON, ""), known)
    assert found in (known, [])  # []: this Python is not glibc's
    assert libraries.find_in_program("/etc/passwd", None, known) == []
    assert libraries.find_in_program("/no/such/file", None, known) == []


def test_a_user_is_found_by_name_and_number() -> None:
    """HOME, USER and LOGNAME are that user's, all else stays; nobody of that name is a usage error."""
    assert users.find("root") == users.find("0")
    changed = users.find("root").environment({b"HOME": b"/elsewhere", b"KEPT": b"\xff"})
    assert changed == {b"KEPT": b"\xff", b"USER": b"root", b"LOGNAME": b"root"} | {
        b"HOME": os.fsencode(users.find("root").home),
        b"SHELL": os.fsencode(users.find("root").shell),
    }
    with pytest.raises(UsageError):
        users.find("no-such-user")


PYTHON = os.path.realpath(sys.executable)
QUESTION = bytes.fromhex("c459010000010000000000000570726f787906676f6c616e67036f72670000010001")


def test_a_packet_is_told_as_tcpdump_tells_it() -> None:
    """A question over UDP, and a SYN: in the form that people know."""
    header = bytes.fromhex("4500003e000040004011000 07f0000017f000035".replace(" ", ""))
    udp = (33653).to_bytes(2) + (53).to_bytes(2) + bytes(4)
    assert packet_log.described(header + udp + QUESTION) == (
        "IP 127.0.0.1.33653 > 127.0.0.53.53: 50265+ A? proxy.golang.org. (34)"
    )
    header = header[:9] + b"\x06" + header[10:]
    tcp = (46504).to_bytes(2) + (853).to_bytes(2) + (7).to_bytes(4) + bytes(4) + bytes([0x50, 2]) + bytes(6)
    assert (
        packet_log.described(header + tcp)
        == "IP 127.0.0.1.46504 > 127.0.0.53.853: Flags [S], seq 7, length 0"
    )


@pytest.mark.parametrize("end", range(0, 62, 7))
def test_a_packet_that_is_cut_off_is_none(end: int) -> None:
    """Pieces of packets, and packets about other things, are passed over."""
    header = bytes.fromhex("4500003e0000400040110000" + "7f0000017f000035")
    udp = (33653).to_bytes(2) + (53).to_bytes(2) + bytes(4)
    found = packet_log.described((header + udp + QUESTION)[:end])
    assert found is None or found.startswith("IP ")
    assert packet_log.described(header + (1).to_bytes(2) * 2 + bytes(40)) is None
