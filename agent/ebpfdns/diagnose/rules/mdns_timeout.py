"""`mdns_timeout`: nobody on the link owns this name; multicast simply waits it out.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import NS_PER_S
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import owed_by_none, waited_at, waits_there
from ebpfdns.diagnose.wording import milliseconds, seconds, shown_text, subject

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase

PATHS = ("/run/avahi-daemon/socket",)
#: Multicast DNS and LLMNR: port → what speaks there.
MULTICAST_PORTS = {5353: "multicast DNS", 5355: "LLMNR"}
#: How long Avahi tries for one family, with what passes around it.
WAITED_OUT_NS = (NS_PER_S * 9 // 2, NS_PER_S * 13 // 2)
NO_SUCH_NAME = (-2, -5, 1, 4)


def rule(case: LookupCase) -> Cause | None:
    """A name that is looked for by multicast: the wait is under way, or ended as such waits end."""
    if not owed_by_none(case) or _was_asked_about(case) or not _is_multicast_name(case):
        return None
    if case.is_open:
        return _while_open(case)
    low_ns, high_ns = WAITED_OUT_NS
    has_waited_out = low_ns <= case.elapsed_ns <= high_ns or 2 * low_ns <= case.elapsed_ns <= 2 * high_ns
    if case.lookup.status != "failed" or case.lookup.code not in NO_SUCH_NAME or not has_waited_out:
        return None
    took = seconds(case.elapsed_ns)
    text = f"the lookup ended without a name after {took}, as multicast does that nobody answers"
    evidence = Evidence("blocked_in_syscall", text, {"elapsed_ms": milliseconds(case.elapsed_ns)})
    return _cause(case, "likely", f"Nobody on the link has answered for {subject(case.lookup)}", evidence)


def _while_open(case: LookupCase) -> Cause | None:
    """It waits for Avahi, or a multicast socket of this process is open."""
    waited = waited_at(case, PATHS)
    if waited is not None:
        return _cause(
            case,
            "possible",
            f"Avahi asks the link for {subject(case.lookup)}, and nobody has answered so far",
            waits_there(case, waited),
        )
    socket = _multicast_socket(case)
    if socket is None:
        return None
    return _cause(
        case, "likely", f"Nobody on the link has answered for {subject(case.lookup)} so far", socket
    )


def _multicast_socket(case: LookupCase) -> Evidence | None:
    """A UDP socket that its thread waits for, on a multicast port."""
    thread = case.thread
    for facts in (case.situation.thread or {}).get("sockets") or () if thread else ():
        for end in ("remote", "local"):
            port = (facts.get(end) or [None, None])[1]
            if port in MULTICAST_PORTS:
                text = f"the thread waits for a socket that speaks {MULTICAST_PORTS[port]}"
                return Evidence("blocked_in_syscall", text, {"port": port, "fd": facts.get("fd")})
    return None


def _was_asked_about(case: LookupCase) -> bool:
    """Whether a server was asked for the name; nss-mdns asks first whether DNS has a `local` of its own."""
    return any((query.name or b"").rstrip(b".").lower() != b"local" for query in case.sent)


def _is_multicast_name(case: LookupCase) -> bool:
    name = (case.lookup.name or b"").rstrip(b".").lower()
    return bool(name) and (name.endswith(b".local") or b"." not in name)


def _cause(case: LookupCase, confidence: str, summary: str, evidence: Evidence) -> Cause:
    name = subject(case.lookup)
    how = "multicast has no answer for a name that does not exist, it waits 5 s"
    sources = ((case.situation.process or {}).get("nsswitch") or {}).get("hosts") or ()
    order = Evidence("nss_source_before_dns", f"hosts: {shown_text(' '.join(sources))}", {"name": name})
    return Cause(
        "mdns_timeout",
        "likely" if confidence == "likely" else "possible",
        f"{summary}: {how}.",
        (evidence, order) if sources else (evidence,),
        "Set hosts: files dns in /etc/nsswitch.conf, resolvectl mdns LINK no, or use a name of your domain",
    )
