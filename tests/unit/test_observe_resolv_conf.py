"""A process's own resolv.conf: its syntax, and that it is the process's own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe.resolv_conf import parse_resolv_conf, resolv_conf

if TYPE_CHECKING:
    from pathlib import Path

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(st.lists(words), st.lists(words, min_size=1), st.lists(words), st.sampled_from([" ", "\t", " \t "]))
def test_what_is_written_is_read_back(
    servers: list[str], search: list[str], options: list[str], gap: str
) -> None:
    """Every server, search domain and option comes out in its order, between comments and other words."""
    lines = ["# comment", "; comment", "", "sortlist 192.0.2.0"]
    lines += [f"nameserver{gap}{server}{gap}rest" for server in servers]
    lines += ["search old", "domain older", "search" + gap + gap.join(search)]
    lines += [f"options{gap}{option}" for option in options]
    found = parse_resolv_conf("\n".join(lines).encode())
    assert found == {"nameservers": servers, "search": search, "options": options, "present": True}


@given(st.binary())
def test_any_bytes_are_understood_or_ignored(text: bytes) -> None:
    """No bytes make the parser fail, and what it finds can be written as JSON."""
    found = parse_resolv_conf(text)
    assert all(word.encode() for word in [*found["nameservers"], *found["search"], *found["options"]])


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        (b" nameserver 192.0.2.1\n", [], []),  # libcs want the keyword at the start of a line
        (b"nameserver\n", [], []),
        (b"nameserver fe80::1%eth0", ["fe80::1%eth0"], []),
        (b"nameserver 192.0.2.1 # first\r\n", ["192.0.2.1"], []),
        (b"search a.test b.test\ndomain c.test d.test\n", [], ["c.test"]),
        (b"search a.test\nsearch\n", [], []),
        (b"nameservers 192.0.2.1\n", [], []),
    ],
)
def test_a_line_means_what_it_means_to_a_libc(text: bytes, servers: list[str], search: list[str]) -> None:
    """Keywords stand at the start of a line, one server to a line; the last search list counts."""
    found = parse_resolv_conf(text)
    assert (found["nameservers"], found["search"]) == (servers, search)


def chrooted(root: Path) -> subprocess.Popen[bytes]:
    """A process with another root directory, ready."""
    code = (
        "import os, sys; os.chroot(sys.argv[1]); os.chdir('/'); print('ready', flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(root)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_the_file_is_the_targets_own_even_behind_a_link(tmp_path: Path) -> None:
    """An absolute link in a container leads into the container, never into the agent's own files."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    with chrooted(tmp_path) as target:
        assert resolv_conf(target.pid)["present"] is False
        (tmp_path / "etc/resolv.conf").symlink_to("/run/stub-resolv.conf")
        assert resolv_conf(target.pid)["present"] is False
        (tmp_path / "run/stub-resolv.conf").write_text("nameserver 127.0.0.53\n", encoding="ascii")
        assert resolv_conf(target.pid)["nameservers"] == ["127.0.0.53"]
        (tmp_path / "run/stub-resolv.conf").unlink()
        os.mkfifo(tmp_path / "run/stub-resolv.conf")
        assert resolv_conf(target.pid)["nameservers"] == [], "a pipe is not waited for"
        target.kill()


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    """Whether nobody has a resolv.conf cannot be told."""
    content = {"nameservers": [], "search": [], "options": [], "present": None}
    file = {
        "path": "/etc/resolv.conf",
        "target": "/etc/resolv.conf",
        "size_bytes": None,
        "mtime_wall_ns": None,
        "replaced": None,
    }
    assert resolv_conf(4194305) == content | file


def test_the_file_behind_the_link(tmp_path: Path) -> None:
    """Which file the link leads to, how long it is and when it was changed is told as the process sees it."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stub.conf").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "etc/resolv.conf").symlink_to("/run/stub.conf")
    with chrooted(tmp_path) as process:
        found = resolv_conf(process.pid)
        process.kill()
    assert found["nameservers"] == ["127.0.0.53"]
    assert (found["target"], found["size_bytes"], found["replaced"]) == ("/run/stub.conf", 22, False)
    assert found["mtime_wall_ns"] == (tmp_path / "run/stub.conf").stat().st_mtime_ns
