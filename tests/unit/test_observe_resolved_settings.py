"""The settings of systemd-resolved: the files that count, in the order in which they count."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.observe import resolved_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MAIN = "etc/systemd/resolved.conf"


def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> dict[str, object]:
    """What is read where these files are: "__" stands for a slash."""
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(resolved_settings, "root_of", lambda _: str(tmp_path))
    return resolved_settings.resolved_settings(1)


def test_nothing_is_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file nothing is known: a distribution may have been built to do either."""
    found = settings(tmp_path, monkeypatch)
    assert found == {"dns_over_tls": None, "dnssec": None, "link_dns_over_tls": []}


def test_drop_ins_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file, then drop-ins by name; of one name that of /etc."""
    found = settings(
        tmp_path,
        monkeypatch,
        etc__systemd__resolvedDOTconf="[Resolve]\n#DNSOverTLS=no\nDNSOverTLS=no\nDNSSEC=allow-downgrade\n",
        run__systemd__resolvedDOTconfDOTd__10DOTconf="[Resolve]\nDNSOverTLS=opportunistic\n",
        etc__systemd__resolvedDOTconfDOTd__10DOTconf="[Resolve]\nDNSOverTLS=Yes\n",
    )
    assert (found["dns_over_tls"], found["dnssec"]) == ("yes", "allow-downgrade")


def test_links_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What resolvectl has set for a link does not count for all of them."""
    found = settings(
        tmp_path, monkeypatch, run__systemd__resolve__netif__2="DNS_OVER_TLS=yes\nSERVERS=192.0.2.1\n"
    )
    assert (found["dns_over_tls"], found["link_dns_over_tls"]) == (None, ["yes"])


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    """Whatever stands in such a file, only settings that exist come out."""
    assert {name for name, _ in resolved_settings.parse(text)} <= {"dns_over_tls", "dnssec"}
