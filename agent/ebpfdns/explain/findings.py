"""What is odd about how a process resolves names: one function for each thing that may be wrong.

Owns: the list of checks. Must not know: where facts come from, or how findings are shown.
A fact that is None was not observed: nothing follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ebpfdns.explain import schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Facts = Mapping[str, Any]
    Check = Callable[[Facts], Iterator["Finding"]]

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")

HUGE_HOSTS_BYTES = 1 << 20
MANY_QUESTIONS = 8
NEARLY = 0.9
MOSTLY = 0.5
#: Sources that are part of glibc itself, or that musl has built in.
BUILT_IN = frozenset({"files", "dns", "db", "compat"})
DNS_PORTS = (53, 853)
EXAMPLE_NAME = "www.example.com"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: a stable id, how bad, a sentence, what it rests on, what to do."""

    id: str
    severity: Severity
    text: str
    remedy: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def findings(facts: Facts) -> list[Finding]:
    """All that is odd, the worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


# resolv.conf.


def _no_nameserver(facts: Facts) -> Iterator[Finding]:
    conf = facts.get("resolv_conf") or {}
    if conf.get("present") is None or conf.get("nameservers"):
        return
    target, path = conf.get("target"), conf.get("path")
    is_dangling = conf["present"] is False and target not in (None, path)
    what = (
        f"{path} is a link to {target}, which does not exist"
        if is_dangling
        else f"{path} does not exist"
        if conf["present"] is False
        else f"{path} names no server"
    )
    yield Finding(
        "dangling_symlink" if is_dangling else "no_nameserver",
        "problem",
        f"{what}: the resolver asks 127.0.0.1.",
        "write a nameserver line there, or: ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
        {"path": path, "target": target, "present": conf["present"]},
    )


def _too_many_servers(facts: Facts) -> Iterator[Finding]:
    servers = (facts.get("resolv_conf") or {}).get("nameservers") or []
    if len(servers) > schedule.MAX_SERVERS:
        ignored = servers[schedule.MAX_SERVERS :]
        yield Finding(
            "servers_ignored",
            "warning",
            f"Of {len(servers)} nameserver lines only the first {schedule.MAX_SERVERS} count: "
            f"{', '.join(ignored)} is never asked.",
            "put a caching resolver (unbound, dnsmasq) before them",
            {"ignored": ignored},
        )


def _deleted_mount(facts: Facts) -> Iterator[Finding]:
    if (facts.get("mount") or {}).get("is_deleted"):
        yield Finding(
            "old_file_mounted",
            "problem",
            "/etc/resolv.conf is mounted from a file that was replaced since: changes never arrive here.",
            "recreate the container",
            {"source": facts["mount"].get("source")},
        )


def _nobody_listens(facts: Facts) -> Iterator[Finding]:
    for address, listener in (facts.get("listeners") or {}).items():
        owner = listener.get("owner") or {}
        if not listener.get("listening"):
            yield Finding(
                "nobody_listens",
                "problem",
                f"resolv.conf names {address}, and nobody listens on its port 53.",
                "start the resolver there (systemctl start systemd-resolved), or name another server",
                {"server": address},
            )
        elif owner.get("state") in ("T", "t"):
            yield Finding(
                "listener_stopped",
                "problem",
                f"{owner.get('name')} (pid {owner.get('pid')}), which listens on {address}, is stopped.",
                f"kill -CONT {owner.get('pid')}",
                {"server": address, "pid": owner.get("pid"), "state": owner.get("state")},
            )
        elif listener.get("rx_queue_bytes"):
            yield Finding(
                "listener_does_not_read",
                "problem",
                f"Questions lie unread at {address}: {owner.get('name') or 'the listener'} is stuck.",
                f"restart it; see: cat /proc/{owner.get('pid')}/stack" if owner.get("pid") else None,
                {"server": address, "rx_queue_bytes": listener["rx_queue_bytes"]},
            )


def _asks_other_server(facts: Facts) -> Iterator[Finding]:
    conf = facts.get("resolv_conf") or {}
    if not conf.get("present"):
        return
    named = set(conf.get("nameservers") or ()) or {"127.0.0.1", "::1"}
    for one in facts.get("sockets") or ():
        remote = one.get("remote") or (None, None)
        if remote[1] not in DNS_PORTS or remote[0] in named:
            continue
        changed_ns, started_ns = conf.get("mtime_wall_ns"), facts.get("started_wall_ns")
        is_later = changed_ns is not None and started_ns is not None and changed_ns > started_ns
        yield Finding(
            "asks_other_server",
            "warning",
            f"It has a socket to {remote[0]} port {remote[1]}, which resolv.conf does not name"
            + (": the file was changed after the process started." if is_later else "."),
            "restart the process, so that it reads the file again" if is_later else None,
            {"server": remote[0], "changed_after_start": is_later},
        )


def _never_reads_again(facts: Facts) -> Iterator[Finding]:
    conf = facts.get("resolv_conf") or {}
    changed_ns, started_ns = conf.get("mtime_wall_ns"), facts.get("started_wall_ns")
    if "no-reload" not in (conf.get("options") or ()) or changed_ns is None or started_ns is None:
        return
    if changed_ns > started_ns:
        yield Finding(
            "file_is_newer",
            "warning",
            "resolv.conf was changed after the process started, and says `no-reload`: it may use the old.",
            "restart the process",
        )


def _no_route(facts: Facts) -> Iterator[Finding]:
    for address, route in (facts.get("routes") or {}).items():
        if route.get("error") or route.get("kind") in {"unreachable", "blackhole", "prohibit"}:
            yield Finding(
                "no_route",
                "problem",
                f"There is no way to the nameserver {address} from the process's network.",
                f"nsenter -t {facts.get('pid')} -n ip route get {address}",
                {"server": address, "errno": route.get("error"), "kind": route.get("kind")},
            )


def _many_questions(facts: Facts) -> Iterator[Finding]:
    conf = facts.get("resolv_conf") or {}
    if not conf.get("search"):
        return
    cost = schedule.cost(EXAMPLE_NAME, conf, facts.get("resolver") or "unknown")
    if len(cost.names) > 1 and cost.names[0] != EXAMPLE_NAME and cost.questions >= MANY_QUESTIONS:
        yield Finding(
            "search_amplifies",
            "warning",
            f"A name like {EXAMPLE_NAME} has fewer dots than ndots asks for: "
            f"{len(cost.names) - 1} suffixes are tried first, up to {cost.questions} questions in all.",
            "write names with a final dot, or set ndots:1 (Kubernetes: dnsConfig.options)",
            {"names": list(cost.names), "questions": cost.questions},
        )


# Name sources.


def _module_missing(facts: Facts) -> Iterator[Finding]:
    if facts.get("resolver") in {"musl", "go"}:
        return
    for name, is_there in (facts.get("nss_modules") or {}).items():
        if is_there is False:
            yield Finding(
                "nss_module_missing",
                "note",
                f"nsswitch.conf names {name}, but libnss_{name}.so.2 is not installed: it is passed over.",
                f"install it, or take {name} out of the hosts line",
                {"source": name},
            )


def _musl_ignores(facts: Facts) -> Iterator[Finding]:
    words = sources(facts)
    if facts.get("resolver") == "musl" and words and not set(words) <= BUILT_IN:
        yield Finding(
            "musl_ignores_nsswitch",
            "note",
            "The process uses musl, which does not read nsswitch.conf: it asks /etc/hosts, then DNS.",
            None,
            {"hosts": words},
        )


def _stub_without_search(facts: Facts) -> Iterator[Finding]:
    conf = facts.get("resolv_conf") or {}
    if (
        "resolve" in sources(facts)
        and facts.get("resolver") == "glibc"
        and conf.get("nameservers") == ["127.0.0.53"]
    ):
        yield Finding(
            "two_ways_to_resolved",
            "note",
            "systemd-resolved is asked over its local socket first; when that fails, by DNS on 127.0.0.53.",
        )


def _huge_hosts(facts: Facts) -> Iterator[Finding]:
    size = (facts.get("hosts_file") or {}).get("size_bytes")
    if size is not None and size >= HUGE_HOSTS_BYTES:
        yield Finding(
            "hosts_file_huge",
            "warning",
            f"/etc/hosts has {size / 1e6:.0f} MB, and is read line by line for every lookup.",
            "serve such a list by a DNS server (dnsmasq --addn-hosts)",
            {"size_bytes": size},
        )


def _environment(facts: Facts) -> Iterator[Finding]:
    for name, value in (facts.get("environment") or {}).items():
        yield Finding(
            "environment_overrides",
            "note",
            f"{name}={value} was in its environment when it started: it changes how names are resolved.",
            None,
            {"name": name, "value": value},
        )


# The process itself.


def _stopped(facts: Facts) -> Iterator[Finding]:
    pid = facts.get("pid")
    if facts.get("state") in ("T", "t"):
        yield Finding("process_stopped", "problem", "The process is stopped.", f"kill -CONT {pid}")
    if facts.get("frozen"):
        yield Finding(
            "process_frozen", "problem", "Its cgroup is frozen.", "thaw it (docker unpause, freezer.state)"
        )
    cpu = facts.get("cpu") or {}
    throttled_ms, interval_ms = cpu.get("throttled_ms"), cpu.get("interval_ms")
    if throttled_ms and interval_ms and throttled_ms > MOSTLY * interval_ms:
        yield Finding(
            "cpu_throttled",
            "problem",
            f"Its cgroup was out of CPU time for {throttled_ms:.0f} of the last {interval_ms:.0f} ms.",
            "raise its CPU limit",
            {"throttled_ms": throttled_ms, "interval_ms": interval_ms},
        )


def _descriptors(facts: Facts) -> Iterator[Finding]:
    limit, total = (facts.get("limits") or {}).get("nofile"), facts.get("fds_total")
    if limit and total is not None and total >= NEARLY * limit:
        yield Finding(
            "descriptors_used_up",
            "problem" if total >= limit else "warning",
            f"{total} of {limit} file descriptors are in use: a lookup needs one or two.",
            f"prlimit --nofile=65536 --pid {facts.get('pid')}; find what leaks them",
            {"fds_total": total, "nofile": limit},
        )


def _waits_in_lookup(facts: Facts) -> Iterator[Finding]:
    waiting = [thread for thread in facts.get("threads") or () if thread.get("lookup")]
    if waiting:
        plural = f"{len(waiting)} threads wait" if len(waiting) > 1 else "1 thread waits"
        yield Finding(
            "waits_in_lookup",
            "problem",
            f"{plural} in a name lookup right now.",
            f"sudo ebpfdns attach --pid {facts.get('pid')}",
            {"tids": [thread.get("tid") for thread in waiting[:16]]},
        )


def sources(facts: Facts) -> list[str]:
    """The names of nsswitch.conf's hosts line, without actions."""
    words = (facts.get("nsswitch") or {}).get("hosts") or []
    return [word for word in words if not word.startswith("[")]


CHECKS: tuple[Check, ...] = (
    _waits_in_lookup,
    _stopped,
    _no_nameserver,
    _nobody_listens,
    _no_route,
    _deleted_mount,
    _descriptors,
    _asks_other_server,
    _never_reads_again,
    _too_many_servers,
    _many_questions,
    _huge_hosts,
    _module_missing,
    _musl_ignores,
    _stub_without_search,
    _environment,
)
