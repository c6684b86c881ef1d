"""`nsswitch_order_stall`: an earlier name source holds the lookup before DNS is asked.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.case import A_SECOND_NS
from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import asked_nobody
from ebpfdns.diagnose.observations import sockets, thread_waits
from ebpfdns.diagnose.wording import listing, shown_text

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Confidence

#: Sources that wait for nobody, or for daemons that have a cause of their own.
OTHERS = frozenset({"files", "db", "cache", "dns", "myhostname", "mymachines", "resolve", "compat"})
MDNS = "mdns"


def rule(case: LookupCase) -> Cause | None:
    """It asked nobody, a module that comes before dns is in the process, and the thread waits."""
    lookup, thread = case.lookup, case.thread
    if lookup.queries or lookup.is_wire or lookup.api.startswith("res_") or thread is None:
        return None
    if thread.is_running or thread.is_stopped or thread.syscall in ("futex", None):
        return None
    modules = _modules_before_dns(case)
    if not modules or _waits_for_another(case):
        return None
    named = listing(map(shown_text, modules))
    return Cause(
        "nsswitch_order_stall",
        _confidence(case, modules),
        f"The lookup is held by {named}, which comes before dns in /etc/nsswitch.conf.",
        (
            _order(case, modules),
            *_frames(case, modules),
            thread_waits(thread, case.elapsed_ns),
            *sockets(thread),
            asked_nobody(case),
        ),
        f"Repair what {named} waits for; or put dns before it, or take it out, in the line hosts: of "
        "/etc/nsswitch.conf",
    )


def _modules_before_dns(case: LookupCase) -> list[str]:
    """Sources before dns whose module is mapped, as nsswitch.conf orders them."""
    process = case.situation.process or {}
    sources = (process.get("nsswitch") or {}).get("hosts") or []
    before = sources[: sources.index("dns")] if "dns" in sources else sources
    mapped = {module.split(".so")[0].removeprefix("libnss_") for module in process.get("modules") or ()}
    return [name for name in before if name in mapped and name not in OTHERS and not name.startswith(MDNS)]


def _waits_for_another(case: LookupCase) -> bool:
    """Whether its thread waits at a DNS server, or for the kernel's own addresses."""
    waited_for = case.thread.sockets if case.thread else ()
    return any(waited.is_dns or waited.kind == "netlink" for waited in waited_for)


def _confidence(case: LookupCase, modules: list[str]) -> Confidence:
    """Sure when the module is on the stack, or the only one there can be waits for a peer of its own."""
    if case.elapsed_ns < A_SECOND_NS:
        return "likely"
    if _frames(case, modules):
        return "confirmed"
    waited_for = case.thread.sockets if case.thread else ()
    has_peer = any(waited.remote is not None or waited.path for waited in waited_for)
    return "confirmed" if has_peer and len(modules) == 1 else "likely"


def _frames(case: LookupCase, modules: list[str]) -> list[Evidence]:
    """The module's functions that its thread is in."""
    stack = (case.situation.thread or {}).get("stack") or ()
    prefixes = tuple(f"_nss_{name}_" for name in modules)
    inside = [frame for frame in stack if isinstance(frame, str) and frame.startswith(prefixes)]
    if not inside:
        return []
    text = f"the thread is in {shown_text(inside[0])}"
    return [Evidence("blocked_in_syscall", text, {"function": shown_text(inside[0])})]


def _order(case: LookupCase, modules: list[str]) -> Evidence:
    sources = ((case.situation.process or {}).get("nsswitch") or {}).get("hosts") or ()
    order = shown_text(" ".join(sources))
    mapped = listing(f"libnss_{shown_text(name)}" for name in modules)
    text = f"hosts: {order}, and {mapped} is in the process"
    return Evidence("nss_source_before_dns", text, {"hosts": order, "modules": len(modules)})
