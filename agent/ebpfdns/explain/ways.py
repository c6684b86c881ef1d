"""The ways by which this host could ask for a name, to be tried side by side: `inspect --name`.

Owns: which servers, transports and candidates belong to each way. Must not know: how a question is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ebpfdns.explain import schedule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Facts = Mapping[str, Any]

DNS_PORT, DOT_PORT = 53, 853
NO_NAMESERVER = "127.0.0.1"  # whom libcs ask when resolv.conf names nobody


@dataclass(frozen=True, slots=True)
class Way:
    """Ask each of `names` until one exists, each of `servers` until one answers.

    `role`: "nameserver" of resolv.conf, "uplink" behind a local stub, or the "rules" of a resolver,
    whose name is then in `rules`.
    """

    role: str
    servers: tuple[str, ...]
    transport: str  # udp, tcp, dot
    has_edns: bool
    names: tuple[str, ...]
    rules: str | None = None

    @property
    def port(self) -> int:
        """Where such questions go."""
        return DOT_PORT if self.transport == "dot" else DNS_PORT


def ways(name: str, conf: Facts, uplinks: Sequence[str]) -> list[Way]:
    """All of them: libc's and Go's rules, each nameserver, and each server behind the stub."""
    servers = tuple(conf.get("nameservers") or ())[: schedule.MAX_SERVERS] or (NO_NAMESERVER,)
    ndots = schedule.option(conf.get("options") or (), "ndots", schedule.DEFAULT_NDOTS, schedule.MAX_NDOTS)
    tried = schedule.names_tried(name, conf.get("search") or (), ndots)
    itself = (name if name.endswith(".") else f"{name}.",)
    by_rules = [
        Way("rules", servers, "udp", has_edns=False, names=tried, rules="libc"),
        Way("rules", servers, "udp", has_edns=True, names=tried, rules="go"),
    ]
    behind = tuple(server for server in uplinks if server not in servers)[: schedule.MAX_SERVERS]
    return [
        *by_rules,
        *(way for server in servers for way in _to(server, "nameserver", itself)),
        *(way for server in behind for way in _to(server, "uplink", itself)),
    ]


def _to(server: str, role: str, names: tuple[str, ...]) -> Iterator[Way]:
    yield Way(role, (server,), "udp", has_edns=False, names=names)
    yield Way(role, (server,), "udp", has_edns=True, names=names)
    yield Way(role, (server,), "tcp", has_edns=False, names=names)
    if role == "uplink":  # what a stub may be told to use; a nameserver of resolv.conf is asked in plain
        yield Way(role, (server,), "dot", has_edns=True, names=names)
