"""`no_nameserver`: resolv.conf names no server, so the resolver asks 127.0.0.1.

Owns: what must have been seen, and the words for it. Must not know: other causes.

It says why a server is wrong, so it is asked once a refusal or a silence has been found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.case import is_local
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.configured import conf_of, is_link, named_servers, troubled_servers, where
from ebpfdns.diagnose.wording import shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Server

#: whom resolvers ask then
BY_DEFAULT = ("127.0.0.1", "::1")


def rule(case: LookupCase) -> Cause | None:
    """The file has no server in it, and one that is asked by default does not answer."""
    conf = conf_of(case)
    if conf is None or named_servers(conf) or case.answered:
        return None
    servers = troubled_servers(case)
    if not servers or not all(is_local(server) and server.address in BY_DEFAULT for server in servers):
        return None
    # Something listens there and keeps silent: it may be meant to be asked, as resolvers ask it by default.
    listens = _something_listens(case, servers)
    state = _state(conf)
    return Cause(
        "no_nameserver",
        "likely" if listens else "confirmed",
        f"{shown_text(where(conf))} {state}, so the resolver asks {servers[0].address}"
        + (", which does not answer." if listens else ", where nobody listens."),
        (_evidence(conf, state),),
        "Write a nameserver line into /etc/resolv.conf, or put its link right "
        "(ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf)",
    )


def _something_listens(case: LookupCase, servers: tuple[Server, ...]) -> bool:
    """Whether a silence says so: a connected socket would have heard of a closed port."""
    listeners = (case.situation.process or {}).get("listeners") or {}
    told = [(listeners.get(server.address) or {}).get("listening") for server in servers]
    if None not in told:
        return any(told)
    refused = any(query.error is not None for query in case.lookup.queries)
    return case.hears_errors and not refused


def _state(conf: dict[str, Any]) -> str:
    if not conf["present"]:
        return "is a link that leads nowhere" if is_link(conf) else "does not exist"
    return "is empty" if conf.get("size_bytes") == 0 else "names no server"


def _evidence(conf: dict[str, Any], state: str) -> Evidence:
    return Evidence(
        "resolv_conf_empty",
        f"{shown_text(where(conf))} {state}",
        {
            "present": bool(conf["present"]),
            "target": conf.get("target"),
            "size_bytes": conf.get("size_bytes"),
        },
    )
