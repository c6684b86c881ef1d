"""What resolv.conf says, against what a lookup did: whom it asked, and who was wrong.

Owns: these comparisons. Must not know: causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.case import same_address

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Server


def conf_of(case: LookupCase) -> dict[str, Any] | None:
    """The file, when it was looked at."""
    conf = case.situation.resolv_conf
    return conf if conf and conf.get("present") is not None else None


def named_servers(conf: dict[str, Any]) -> frozenset[str]:
    """The addresses it names, in one spelling."""
    return frozenset(map(same_address, conf.get("nameservers") or ()))


def troubled_servers(case: LookupCase) -> tuple[Server, ...]:
    """Those that did not answer a question, or could not be asked, or answered too late."""
    troubled = [
        query.server
        for query in case.lookup.queries
        if query in case.silent
        or query.late_ns is not None
        or (query.error is not None and not query.is_answered)
    ]
    return tuple(dict.fromkeys(troubled))


def where(conf: dict[str, Any]) -> str:
    """The file as a person looks for it: through a link, where it has one."""
    path = str(conf.get("path") or "/etc/resolv.conf")
    return f"{path} -> {conf['target']}" if is_link(conf) else path


def is_link(conf: dict[str, Any]) -> bool:
    """Whether its path leads to another one."""
    return conf.get("target") not in (None, conf.get("path"))
