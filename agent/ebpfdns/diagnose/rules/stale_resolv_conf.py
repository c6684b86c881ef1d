"""`stale_resolv_conf`: the process still asks a server that resolv.conf no longer names.

Owns: what must have been seen, and the words for it. Must not know: other causes.

It says why a server is wrong, so it is asked once a refusal or a silence has been found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.case import same_address
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.configured import conf_of, named_servers, troubled_servers, where
from ebpfdns.diagnose.wording import listing, seconds, server_text, shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.model.facts import Server

#: these may be given a state of the caller's own, with servers of its own
OWN_STATE = frozenset({"res_nquery", "res_nsearch", "res_nsend"})
LIBCS = frozenset({"glibc", "musl"})
#: Go looks whether the file has changed when it last looked so long ago
GO_RELOAD_NS = 5_000_000_000
REMEDY = "Restart the process, so that it reads the file anew (in a container: start a new one)"


def rule(case: LookupCase) -> Cause | None:
    """Whoever does not answer is not in the file, and the file changed after the process began."""
    conf = conf_of(case)
    servers = troubled_servers(case)
    if conf is None or not conf["present"] or not servers or case.lookup.is_wire:
        return None
    named = named_servers(conf)
    if not named:
        return None
    if any(same_address(server.address) in named for server in servers):
        return _replaced(conf, servers) if conf.get("replaced") else None
    changed_ns, started_ns = conf.get("mtime_wall_ns"), case.situation.process_started_wall_ns
    if changed_ns is None or started_ns is None or changed_ns <= started_ns:
        return None
    # libc asks whom the file names; a file that changed during the lookup is not read again in its midst.
    age_ns = _age_at_start(case, changed_ns)
    changed_before = age_ns is not None and age_ns > 0
    is_libcs_choice = case.situation.resolver in LIBCS and case.lookup.api not in OWN_STATE
    is_sure = changed_before and (is_libcs_choice or _has_not_looked_again(case, age_ns))
    asked = listing(map(server_text, servers))
    return Cause(
        "stale_resolv_conf",
        "confirmed" if is_sure else "likely",
        f"The process still asks {asked}, which {shown_text(where(conf))} does not name any more: "
        f"it names {_names(conf)}.",
        (
            _changed(conf, changed_ns - started_ns),
            Evidence(
                "server_not_in_resolv_conf",
                f"{asked} was asked, and stands in no nameserver line",
                {"servers_in_file": len(named)},
            ),
            *_go_reloads(case, age_ns),
        ),
        _remedy(case, age_ns),
    )


def _age_at_start(case: LookupCase, changed_ns: int) -> int | None:
    """How old the file was when the lookup began; None when that is not known."""
    now_wall_ns = case.situation.now_wall_ns
    if now_wall_ns is None:
        return None
    return now_wall_ns - (case.situation.now_ns - case.lookup.start_ns) - changed_ns


def _is_gos_choice(case: LookupCase) -> bool:
    return case.lookup.is_of_go and case.situation.resolver == "go"


def _has_not_looked_again(case: LookupCase, age_ns: int | None) -> bool:
    """Whether the file was so new that Go need not have looked at it."""
    return _is_gos_choice(case) and age_ns is not None and age_ns < GO_RELOAD_NS


def _go_reloads(case: LookupCase, age_ns: int | None) -> tuple[Evidence, ...]:
    """When Go looks at the file again."""
    if not _is_gos_choice(case) or age_ns is None or age_ns < 0:
        return ()
    looks = f"Go looks at the file every {seconds(GO_RELOAD_NS)} at most"
    if age_ns < GO_RELOAD_NS:
        text = f"{looks}, and it was {seconds(age_ns)} old when the lookup began"
    else:
        text = (
            f"{looks}, and it was {seconds(age_ns)} old when the lookup began: the old one said `no-reload`, "
            "or the program has a resolver of its own"
        )
    return (Evidence("resolv_conf_changed", text, {"age_ms": round(age_ns / 1e6, 3)}),)


def _remedy(case: LookupCase, age_ns: int | None) -> str:
    if _has_not_looked_again(case, age_ns):
        return "Look up again: within 5 s Go reads the new file. If it does not: restart the process"
    return REMEDY


def _names(conf: dict[str, Any]) -> str:
    return listing(shown_text(address) for address in conf["nameservers"])


def _changed(conf: dict[str, Any], after_ns: int) -> Evidence:
    return Evidence(
        "resolv_conf_changed",
        f"{shown_text(where(conf))} was changed {seconds(after_ns)} after the process began",
        {"changed_after_ms": round(after_ns / 1_000_000, 3)},
    )


def _replaced(conf: dict[str, Any], servers: tuple[Server, ...]) -> Cause:
    """The file is an old one that is still mounted; what the new one says cannot be seen from here."""
    return Cause(
        "stale_resolv_conf",
        "likely",
        f"The process asks {listing(map(server_text, servers))} as an old {shown_text(where(conf))} says: "
        "the file was replaced outside, and the old one is still mounted here.",
        (
            Evidence(
                "resolv_conf_changed",
                f"{shown_text(where(conf))} has no name any more: it was replaced outside of this mount",
                {"replaced": True},
            ),
        ),
        REMEDY,
    )
