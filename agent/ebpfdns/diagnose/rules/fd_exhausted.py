"""`fd_exhausted`: the process has no file descriptor left to ask with.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.local_daemons import asked_nobody
from ebpfdns.diagnose.wording import errno_name

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers

ENFILE, EMFILE = 23, 24


def rule(case: LookupCase) -> Cause | None:
    """It was refused a socket or a file for want of descriptors, and did not come to a good end."""
    error = case.lookup.descriptor_error
    if error not in (EMFILE, ENFILE) or case.lookup.status == "ok":
        return None
    has_asked = bool(case.lookup.queries)
    pid = case.lookup.pid
    if error == EMFILE:
        whose, remedy = (
            "The process",
            f"prlimit --nofile=65536 --pid {pid}; find what it leaves open: ls -l /proc/{pid}/fd",
        )
    else:
        whose, remedy = "This host", "sysctl fs.file-nr fs.file-max; find who has so many: lsof"
    return Cause(
        "fd_exhausted",
        "likely" if has_asked else "confirmed",
        f"{whose} has no file descriptor left: the lookup could not open what it needs.",
        (_limit_hit(case, error), *([] if has_asked else [asked_nobody(case)])),
        f"Try: {remedy}",
    )


def _limit_hit(case: LookupCase, error: int) -> Evidence:
    process = case.situation.process or {}
    limit = (process.get("limits") or {}).get("nofile")
    numbers: Numbers = {"errno": error, "error": errno_name(error)}
    text = f"a socket or file was refused with {errno_name(error)} inside the lookup"
    if process.get("fds_total") is not None:
        numbers["fds"] = process["fds_total"]
    if limit is not None:
        numbers["limit"] = limit
        text += f"; {process.get('fds_total', 'an unknown number')} of {limit} descriptors are in use"
    return Evidence("fd_limit_hit", text, numbers)
