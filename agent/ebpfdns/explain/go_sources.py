"""What Go makes of the sources in nsswitch.conf: which it serves itself, in which order; which are libc's.

Owns: the second half of net/conf.go. Must not know: what was forced, or how the file is read.

`nsswitch`: {error, sources: [[source, [[negated, status, action] …]] …]} as `observe.go_surroundings` has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Facts = Mapping[str, Any]
    Source = Sequence[Any]

FIRST_UNKNOWN_IS_DNS, FIRST_LOCAL_BY_MDNS = (1, 21), (1, 23)
FIRST_UNDERSCORE = FIRST_READ_BY_LINE = (1, 20)
OWN = frozenset({"files", "dns"})
BOTH = "files,dns"
#: what a source does after each outcome when nothing is said
DEFAULT_ACTIONS = {"success": "return", "notfound": "continue", "unavail": "continue", "tryagain": "continue"}
HOSTNAMES = frozenset({"localhost", "localhost.localdomain"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one name: who answers, in which order Go's own resolver looks, and the sentence that says why."""

    resolver: Literal["go", "cgo"] | None
    order: str
    why: str


def is_local(host: str) -> bool:
    """Whether a name is below .local, which is multicast's (RFC 6762)."""
    return host.lower().endswith(".local")


def forced_order(nsswitch: Facts | None, version: tuple[int, int]) -> str | None:
    """Go's own resolver must be used: the order of its sources; None when it is not known."""
    if nsswitch is None or version < FIRST_UNKNOWN_IS_DNS:
        return None
    if _is_silent(nsswitch, version) or nsswitch.get("error"):
        return BOTH
    names = [str(source[0]) for source in nsswitch["sources"]]
    # A source that Go does not have counts as dns, but only when there is no dns.
    has_dns = "dns" in names
    return _order([name if name in OWN else "dns" for name in names if name in OWN or not has_dns]) or BOTH


def verdict(facts: Facts, host: str | None, version: tuple[int, int]) -> Verdict:
    """Nothing was forced. `host`: without its final dot; None: an ordinary name."""
    nsswitch = facts["nsswitch"]
    if _is_silent(nsswitch, version):
        has = "there is no nsswitch.conf" if nsswitch.get("error") else "nsswitch.conf has no line for hosts"
        return Verdict("go", BOTH, f"{has}, and resolv.conf has nothing that Go does not know")
    if nsswitch.get("error"):
        text = f"nsswitch.conf cannot be understood ({nsswitch['error']}): that is left to libc"
        return Verdict("cgo", "", text)
    own = [str(name) for name, _ in nsswitch["sources"] if name in OWN]
    told = [_of_source(facts, str(name), actions, host, version) for name, actions in nsswitch["sources"]]
    found = [one for one in told if one is not None]
    first = next((one for one in found if one.resolver == "cgo"), None) or next(iter(found), None)
    return first or _served(own)


def _served(own: list[str]) -> Verdict:
    order = _order(own)
    if order is None:
        return Verdict("cgo", "", "nsswitch.conf has neither files nor dns: that is left to libc")
    return Verdict("go", order, "neither nsswitch.conf nor resolv.conf has anything that Go does not know")


def _of_source(
    facts: Facts, name: str, actions: Source, host: str | None, version: tuple[int, int]
) -> Verdict | None:
    """Whether one source takes the name away from Go's own resolver; None: it does not."""
    if name in OWN:
        text = f"nsswitch.conf has an action behind {name} that Go does not know"
        return None if is_standard(actions) else Verdict("cgo", "", text)
    has_name = host != "" or version < FIRST_UNKNOWN_IS_DNS  # an address has none
    if name == "myhostname" and has_name:
        return None if host is None else _own_name(facts, host, version)
    if name.startswith("mdns") and has_name:
        if version >= FIRST_LOCAL_BY_MDNS and host is not None and is_local(host):
            return Verdict("cgo", "", f"the name is below .local, and nsswitch.conf has {name}")
        return _mdns_allow(facts, version)
    return Verdict("cgo", "", f"nsswitch.conf has {name}, which Go does not know")


def _mdns_allow(facts: Facts, version: tuple[int, int]) -> Verdict | None:
    """It may send any name to multicast: "" when it is there, ENOENT when not, or another error."""
    state = facts.get("mdns_allow")
    if state is None:
        return Verdict(None, "", "whether there is an mdns.allow, which Go leaves to libc, was not seen")
    if state == "ENOENT" or (state and version < FIRST_UNKNOWN_IS_DNS):
        return None
    return Verdict("cgo", "", "nsswitch.conf has mdns, and there is an mdns.allow: left to libc")


def _own_name(facts: Facts, host: str, version: tuple[int, int]) -> Verdict | None:
    """Myhostname answers for this host's own names."""
    name = host.lower()
    gateways = {"_gateway", "_outbound"} if version >= FIRST_UNDERSCORE else {"gateway"}
    is_localhost = name in HOSTNAMES or name.endswith((".localhost", ".localhost.localdomain"))
    own = facts.get("host_name")
    if is_localhost or name in gateways or (own is not None and name == own.lower()):
        return Verdict("cgo", "", "nsswitch.conf has myhostname, and the name is one of this host's own")
    if own is None:
        return Verdict(None, "", "nsswitch.conf has myhostname, and what the host is called was not seen")
    return None


def is_standard(criteria: Sequence[Sequence[Any]]) -> bool:
    """Whether [actions] behind a source say only what holds without them."""
    last = len(criteria) - 1
    return all(
        not negated
        and status in DEFAULT_ACTIONS
        and (action == DEFAULT_ACTIONS[status] or (number == last and action == "return"))
        for number, (negated, status, action) in enumerate(criteria)
    )


def _is_silent(nsswitch: Facts, version: tuple[int, int]) -> bool:
    """Whether it says nothing of hosts: from 1.20 on Go reads a directory in its place as an empty file."""
    error = nsswitch.get("error")
    is_empty = not error or (error == "EISDIR" and version >= FIRST_READ_BY_LINE)
    return error == "ENOENT" or (is_empty and not nsswitch.get("sources"))


def _order(own: Sequence[str]) -> str | None:
    """In Go's words: the sources it serves, the first one first; None when there are none."""
    return ",".join(dict.fromkeys(own)) or None
