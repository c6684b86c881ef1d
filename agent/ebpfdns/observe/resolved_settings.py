"""What systemd-resolved was told about encryption and signatures: its files, as it would read them.

Owns: resolved.conf, its drop-ins, and the files of links. Must not know: what follows from a setting.
The daemon is not asked: a setting that was changed after it started may not be in force.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ebpfdns.observe.name_files import read_text
from ebpfdns.observe.processes import path_in_root

if TYPE_CHECKING:
    from collections.abc import Iterator

Facts = dict[str, Any]

#: The first one there is counts; of drop-ins with one name too, and the later name wins.
TOPS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd")
#: of links: what resolvectl has set, and what networkd was told
LINKS = ("/run/systemd/resolve/netif", "/run/systemd/netif/links")
WORDS = {"true": "yes", "1": "yes", "on": "yes", "false": "no", "0": "no", "off": "no"}
NAMES = {"DNSOverTLS": "dns_over_tls", "DNS_OVER_TLS": "dns_over_tls", "DNSSEC": "dnssec"}
MAX_FILES = 64


def resolved_settings(tid: int) -> Facts:
    """{dns_over_tls, dnssec, link_dns_over_tls: […]}: "yes", "no", …; None: not set in any file."""
    root = root_of(tid)
    found: dict[str, str] = {}
    for path in _files(root):
        found |= dict(parse(read_text(root, path) or ""))
    links = [
        value
        for folder in LINKS
        for file in _names(root, folder)
        for name, value in parse(read_text(root, f"{folder}/{file}") or "")
        if name == "dns_over_tls" and value
    ]
    return {
        "dns_over_tls": found.get("dns_over_tls") or None,
        "dnssec": found.get("dnssec") or None,
        "link_dns_over_tls": sorted(set(links)),
    }


def root_of(tid: int) -> str:
    """Where a thread's files are."""
    return f"/proc/{tid}/root"


def parse(text: str) -> Iterator[tuple[str, str]]:
    """(setting, value) of the lines that matter, in order; resolved.conf and the files of links alike."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        name = NAMES.get(key.strip())
        if equals and name:
            word = value.strip().lower()
            yield name, WORDS.get(word, word)


def _files(root: str) -> list[str]:
    main = [f"{top}/resolved.conf" for top in TOPS]
    first = next((path for path in main if read_text(root, path)), None)
    drops: dict[str, str] = {}
    for top in TOPS:
        for name in _names(root, f"{top}/resolved.conf.d"):
            if name.endswith(".conf"):
                drops.setdefault(name, f"{top}/resolved.conf.d/{name}")
    return [*([first] if first else []), *(drops[name] for name in sorted(drops))][:MAX_FILES]


def _names(root: str, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(path_in_root(root, folder)))[:MAX_FILES]  # noqa: PTH208 - names, not paths
    except OSError:
        return []
