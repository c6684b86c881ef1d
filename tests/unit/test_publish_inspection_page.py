"""The report for people: all that one asks first is there, whatever was not seen."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ebpfdns.explain.report import report
from ebpfdns.publish.inspection_page import page

TEXTS = st.text(max_size=12)
FACTS: dict[str, Any] = {
    "pid": 4242,
    "process": {"pid": 4242, "executable": {"name": "app", "path": "/app"}, "start_time": None},
    "resolver": "glibc",
    "libc": "glibc 2.36",
    "nsswitch": {"present": True, "hosts": ["files", "dns"]},
    "resolv_conf": {
        "path": "/etc/resolv.conf",
        "target": "/run/stub.conf",
        "links": ["/etc/alternatives/resolv", "/run/stub.conf"],
        "present": True,
        "nameservers": [f"192.0.2.{number}" for number in range(1, 5)],
        "search": ["example.com"],
        "options": [],
        "comments": "",
    },
    "threads_total": 1,
    "threads": [
        {"tid": 7, "name": "app", "state": "S", "syscall": "futex", "asleep_ms": 3210.0, "lookup": None}
    ],
}


def shown(facts: dict[str, Any]) -> str:
    file = io.StringIO()
    Console(file=file, width=200, highlight=False).print(page(report(facts)))
    return file.getvalue()


def test_the_chain_of_links_and_the_servers() -> None:
    """Each link is there in its order, each server with its way, and a fourth is told to be idle."""
    text = shown(FACTS)
    assert "/etc/resolv.conf → /etc/alternatives/resolv → /run/stub.conf" in text
    assert "nameserver 192.0.2.3: the way to it was not looked up\n" in text.replace(" \n", "\n")
    assert "nameserver 192.0.2.4: the way to it was not looked up (never asked" in text
    assert "7 app: waits in futex, for 3.2 s" in text


@pytest.mark.parametrize("missing", [name for name in FACTS if name != "process"])
def test_it_can_always_be_shown(missing: str) -> None:
    """A part that was not seen leaves the others."""
    assert "(pid 4242)" in shown({name: value for name, value in FACTS.items() if name != missing})
    assert "(pid 4242)" in shown(FACTS | {missing: None})


@given(st.lists(TEXTS), st.lists(TEXTS), st.lists(TEXTS), TEXTS)
def test_markup_and_control_characters_are_text(
    servers: list[str], search: list[str], links: list[str], name: str
) -> None:
    """What a container writes in its files is shown as it is, or escaped; it never steers the terminal."""
    conf = FACTS["resolv_conf"] | {"nameservers": servers, "search": search, "links": links}
    text = shown(FACTS | {"resolv_conf": conf, "threads": [FACTS["threads"][0] | {"name": f"[red]{name}"}]})
    assert all(line.isprintable() for line in text.split("\n"))
    assert "[red]" in text
