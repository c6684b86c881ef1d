"""Which waits prove that a thread is inside a name lookup, and which do not."""

from __future__ import annotations

from typing import Any

import pytest

from ebpfdns.observe.resolver_waits import ResolverWait, resolver_wait

PORTS = frozenset({53, 5300})
DNS: dict[str, Any] = {"fd": 3, "kind": "udp", "remote": ["192.0.2.1", 53]}
WEB: dict[str, Any] = {"fd": 4, "kind": "tcp", "remote": ["192.0.2.1", 443]}
NSCD: dict[str, Any] = {"fd": 5, "kind": "unix", "path": None, "peer": {"path": "/var/run/nscd/socket"}}
BUS: dict[str, Any] = {"fd": 6, "kind": "unix", "path": None, "peer": {"path": "/run/dbus/system_bus_socket"}}
UNNAMED: dict[str, Any] = {"fd": 7, "kind": "unix", "path": None}


def facts(syscall: str | None, *sockets: dict[str, Any], stack: list[str] | None = None) -> dict[str, Any]:
    return {"syscall": syscall, "sockets": list(sockets), "stack": stack}


PROOFS = {
    "polls a DNS socket": (facts("poll", DNS), ResolverWait("dns", (3,))),
    "polls two of them": (facts("ppoll", DNS, {**DNS, "fd": 9}), ResolverWait("dns", (3, 9))),
    "another port that was chosen": (
        facts("recvfrom", {**DNS, "remote": ["::1", 5300]}),
        ResolverWait("dns", (3,)),
    ),
    "connects to it": (facts("connect", {**DNS, "kind": "tcp"}), ResolverWait("dns", (3,))),
    "after it was stopped": (facts("restart_syscall", DNS), ResolverWait("dns", (3,))),
    "its loop watches nothing else": (facts("epoll_wait", DNS), ResolverWait("dns", (3,))),
    "its socket is free, and the question lies in memory beside its servers": (
        {**facts("poll", {"fd": 8, "kind": "udp"}), "asked": {"servers": [["192.0.2.1", 53]]}},
        ResolverWait("dns", (8,)),
    ),
    "waits for nscd": (facts("poll", NSCD), ResolverWait("service", (5,))),
    "a resolver on the stack": (
        facts("futex", stack=["__lll_lock_wait", "gethostbyname", "main"]),
        ResolverWait("stack", (), "gethostbyname"),
    ),
    "the outermost one counts": (
        facts("poll", DNS, stack=["poll", "gethostbyname_r", "gethostbyname", "main"]),
        ResolverWait("dns", (3,), "gethostbyname"),
    ),
}


@pytest.mark.parametrize("name", PROOFS)
def test_a_proof_is_taken(name: str) -> None:
    """A socket of a resolver that the thread itself waits for, or a frame of it, is proof."""
    look, expected = PROOFS[name]
    assert resolver_wait(look, PORTS) == expected


@pytest.mark.parametrize(
    "look",
    [
        facts("poll", WEB),
        facts("poll"),
        facts("epoll_wait", DNS, WEB),
        facts("running", DNS),
        facts(None, DNS),
        facts("wait4", DNS),
        facts("poll", BUS),
        facts("poll", UNNAMED),
        facts("poll", {"fd": 8, "kind": "udp"}),
        facts("futex", stack=["pthread_cond_wait", "main"]),
    ],
)
def test_anything_else_is_none(look: dict[str, Any]) -> None:
    """What may be something else is not taken for a lookup."""
    assert resolver_wait(look, PORTS) is None
