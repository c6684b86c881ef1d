"""The chain of symbolic links behind a path, inside a root directory that is not one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.observe.links import links
from ebpfdns.observe.processes import MAX_SYMLINKS

if TYPE_CHECKING:
    from pathlib import Path

PATH = "/etc/resolv.conf"


def etc(root: Path) -> Path:
    folder = root / "etc"
    folder.mkdir()
    return folder


def test_a_plain_file_has_none(tmp_path: Path) -> None:
    """A file, or nothing at all, is not a link."""
    assert links(str(tmp_path), PATH) == []
    (etc(tmp_path) / "resolv.conf").touch()
    assert links(str(tmp_path), PATH) == []


def test_each_step_is_told(tmp_path: Path) -> None:
    """Relative and absolute links follow each other as in a chroot; the end need not exist."""
    folder = etc(tmp_path)
    (folder / "resolv.conf").symlink_to("alternatives/resolv")
    (folder / "alternatives").mkdir()
    (folder / "alternatives/resolv").symlink_to("/run/../run/stub.conf")
    assert links(str(tmp_path), PATH) == ["/etc/alternatives/resolv", "/run/stub.conf"]


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    """A relative link starts in the real folder of the link, not in the one that was named."""
    (tmp_path / "etc").symlink_to("usr/etc")
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "usr/etc/resolv.conf").symlink_to("../run/stub.conf")
    assert links(str(tmp_path), PATH) == ["/usr/run/stub.conf"]


def test_a_link_to_above_stays_inside(tmp_path: Path) -> None:
    """No number of `..` leads out of the root."""
    (etc(tmp_path) / "resolv.conf").symlink_to("../../../../run/stub.conf")
    assert links(str(tmp_path), PATH) == ["/run/stub.conf"]


def test_a_circle_ends(tmp_path: Path) -> None:
    """Links that lead to each other are followed as often as the kernel would."""
    folder = etc(tmp_path)
    (folder / "resolv.conf").symlink_to("other")
    (folder / "other").symlink_to("resolv.conf")
    assert len(links(str(tmp_path), PATH)) == MAX_SYMLINKS
