"""`target_stopped`: the program itself is stopped, frozen or out of CPU time.

Owns: what must have been seen, and the words for it. Must not know: other causes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfdns.diagnose.cause import Cause, Evidence
from ebpfdns.diagnose.observations import query_sent, thread_waits

if TYPE_CHECKING:
    from ebpfdns.diagnose.case import LookupCase
    from ebpfdns.diagnose.cause import Numbers
    from ebpfdns.diagnose.threads import Thread


#: of the time since it was looked at last: less may be bad luck of the moment
MOSTLY = 0.5


def rule(case: LookupCase) -> Cause | None:
    """Its thread is in state T (a signal) or t (a debugger), its cgroup is frozen, or out of CPU time."""
    thread = case.thread
    if thread is None:
        return None
    if thread.is_stopped:
        return _stopped(case, thread)
    process = case.situation.process or {}
    if process.get("frozen"):
        return _frozen(case)
    cpu = process.get("cpu") or {}
    throttled_ms, interval_ms = cpu.get("throttled_ms"), cpu.get("interval_ms")
    if not throttled_ms or not interval_ms or throttled_ms <= MOSTLY * interval_ms or not thread.is_running:
        return None
    return _throttled(case, cpu)


def _stopped(case: LookupCase, thread: Thread) -> Cause:
    pid = case.lookup.pid
    is_debugged = thread.state == "t"
    who = "held by a debugger" if is_debugged else "stopped by a signal"
    release = f"Let the debugger of process {pid} go on" if is_debugged else f"Try: kill -CONT {pid}"
    return Cause(
        "target_stopped",
        "confirmed",
        f"The program itself is {who}: it cannot read an answer, whatever the servers do.",
        (thread_waits(thread, case.elapsed_ns), query_sent(case)),
        release,
    )


def _frozen(case: LookupCase) -> Cause:
    pid = case.lookup.pid
    return Cause(
        "target_stopped",
        "confirmed",
        "The program's cgroup is frozen: it cannot read an answer, whatever the servers do.",
        (Evidence("process_stopped", "its cgroup is frozen", {"frozen": True}), query_sent(case)),
        f"Thaw the cgroup that /proc/{pid}/cgroup names: docker unpause, systemctl thaw, "
        "or write 0 to its cgroup.freeze (v1: THAWED to its freezer.state)",
    )


def _throttled(case: LookupCase, cpu: dict[str, Any]) -> Cause:
    throttled_ms, interval_ms = cpu["throttled_ms"], cpu["interval_ms"]
    quota_us, period_us = cpu.get("quota_us"), cpu.get("period_us")
    limit = f", its limit is {quota_us} of {period_us} µs" if quota_us and period_us else ""
    numbers: Numbers = {
        "throttled_ms": throttled_ms,
        "interval_ms": interval_ms,
        "quota_us": quota_us,
        "period_us": period_us,
    }
    text = f"its cgroup was out of CPU time for {throttled_ms:.0f} of the last {interval_ms:.0f} ms{limit}"
    running = Evidence("thread_running_elsewhere", "the thread wants to run", {"thread": case.lookup.tid})
    return Cause(
        "target_stopped",
        "confirmed",
        "The program itself is out of CPU time: its cgroup's limit keeps it from running.",
        (Evidence("cpu_throttled", text, numbers), running, query_sent(case)),
        f"Raise the CPU limit of process {case.lookup.pid} (in Kubernetes: resources.limits.cpu)",
    )
