"""The catalogue of causes, in the order in which their rules are tried: the first that matches wins.

Owns: the list. A new cause is a file in `rules/` and a line here; a cause without a rule is a promise
to readers of the log that this id may come. Must not know: what any rule looks at.

The order: the program itself → a lock or another thread → a local daemon → errors at send → the protocol →
silence, specific first → configuration alone → past the resolver → connects → children → blind → unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.diagnose.rules import (
    agent_blind,
    avahi_stall,
    bypass,
    child_process,
    coalesced_wait,
    connect_after_dns,
    edns_dropped,
    fd_exhausted,
    first_ns_dead,
    fork_lock_inherited,
    forwarder_upstream_silent,
    gethostbyname_serialized,
    go_cgo_thread_limit,
    hosts_file_huge,
    ipv6_first_blackholed,
    late_reply,
    local_firewall,
    mdns_timeout,
    no_nameserver,
    ns_refused,
    ns_silent,
    ns_unreachable,
    nscd_stall,
    nsswitch_order_stall,
    one_reply_lost,
    rcode_retry,
    reply_ignored,
    reply_not_read,
    resolved_degraded,
    resolved_dot_blocked,
    resolved_ipc_stall,
    resolved_stub_silent,
    resolved_upstream_silent,
    search_amplification,
    stale_resolv_conf,
    target_stopped,
    tcp53_blocked,
    tcp53_silent,
    threadpool_starved,
    tls_stall,
    unknown,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.diagnose.case import ConnectCase, LookupCase
    from ebpfdns.diagnose.cause import Cause

    Rule = Callable[[LookupCase], Cause | None]
    ConnectRule = Callable[[ConnectCase], Cause | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One cause: its id, what it says, and its rule (None: later)."""

    id: str
    meaning: str
    rule: Rule | None = None
    connect_rule: ConnectRule | None = None
    about_silence: bool = False  # rests on "no answer was seen": needs every question, and the wire
    explains: frozenset[str] = frozenset()  # it says why these are so, and takes their place when sure
    last_resort: bool = False  # only for what is plainly not healthy

    @property
    def is_implemented(self) -> bool:
        """Whether a line can carry it today."""
        return self.rule is not None or self.connect_rule is not None


#: what a wrong server looks like
WRONG_SERVER = frozenset(
    {"ns_refused", "ns_silent", "ns_unreachable", "first_ns_dead", "resolved_stub_silent", "late_reply"}
)

CATALOGUE = (
    Entry("target_stopped", "The program itself is stopped, frozen or out of CPU time.", target_stopped.rule),
    Entry(
        "reply_not_read",
        "The answer is here, in the socket's queue; the program does not read it.",
        reply_not_read.rule,
    ),
    Entry("fd_exhausted", "The process has no file descriptor left to ask with.", fd_exhausted.rule),
    Entry(
        "go_cgo_thread_limit",
        "Go resolves through libc, and all permitted lookup threads are in use.",
        go_cgo_thread_limit.rule,
    ),
    Entry(
        "threadpool_starved",
        "The lookup is queued behind others in a small thread pool.",
        threadpool_starved.rule,
    ),
    Entry(
        "coalesced_wait",
        "This lookup waits for an identical one that is already running.",
        coalesced_wait.rule,
    ),
    Entry(
        "gethostbyname_serialized",
        "The thread waits for a lock that another's gethostbyname holds.",
        gethostbyname_serialized.rule,
    ),
    Entry(
        "fork_lock_inherited",
        "A forked child waits for a lock whose owner does not exist in it.",
        fork_lock_inherited.rule,
    ),
    Entry(
        "resolved_ipc_stall",
        "systemd-resolved is stopped or stuck, and the program waits on its socket.",
        resolved_ipc_stall.rule,
    ),
    Entry("nscd_stall", "The name service cache daemon does not answer.", nscd_stall.rule),
    Entry("avahi_stall", "A .local lookup waits for the Avahi daemon.", avahi_stall.rule),
    Entry(
        "nsswitch_order_stall",
        "An earlier name source holds the lookup before DNS is asked.",
        nsswitch_order_stall.rule,
    ),
    Entry(
        "local_firewall",
        "This host's own firewall refuses the question, or drops the answer.",
        local_firewall.rule,
        local_firewall.of_connect,
    ),
    Entry("ns_unreachable", "There is no route to the DNS server.", ns_unreachable.rule),
    Entry("ns_refused", "Nothing listens on the DNS server's port.", ns_refused.rule),
    Entry(
        "tcp53_blocked",
        "The answer is too big for UDP, and TCP to port 53 is blocked.",
        tcp53_blocked.rule,
        tcp53_blocked.of_connect,
    ),
    Entry(
        "tcp53_silent",
        "DNS over TCP is connected, but no answer comes.",
        tcp53_silent.rule,
        about_silence=True,
    ),
    Entry("rcode_retry", "The server answers with an error that is tried again.", rcode_retry.rule),
    Entry("reply_ignored", "An answer arrives that the resolver must refuse.", reply_ignored.rule),
    Entry("late_reply", "The server does answer, but later than the resolver waits.", late_reply.rule),
    Entry(
        "resolved_dot_blocked",
        "systemd-resolved must use DNS over TLS, and port 853 does not work.",
        resolved_dot_blocked.rule,
    ),
    Entry(
        "resolved_upstream_silent",
        "systemd-resolved works, but its DNS server does not answer it.",
        resolved_upstream_silent.rule,
    ),
    Entry(
        "resolved_degraded",
        "systemd-resolved is probing what its server supports.",
        resolved_degraded.rule,
    ),
    Entry(
        "forwarder_upstream_silent",
        "The local forwarder got the question; its own server is silent.",
        forwarder_upstream_silent.rule,
    ),
    Entry(
        "resolved_stub_silent",
        "127.0.0.53 does not answer, and what is behind it cannot be seen.",
        resolved_stub_silent.rule,
        about_silence=True,
    ),
    Entry(
        "first_ns_dead",
        "The first server is dead; a later one answers.",
        first_ns_dead.rule,
        about_silence=True,
    ),
    Entry(
        "one_reply_lost",
        "Of the questions for IPv4 and IPv6 only one was answered.",
        one_reply_lost.rule,
        about_silence=True,
    ),
    Entry(
        "edns_dropped",
        "Large answers, or questions with EDNS, get lost on the way; others pass.",
        edns_dropped.rule,
        about_silence=True,
    ),
    Entry(
        "search_amplification",
        "The name is tried with each search suffix first.",
        search_amplification.rule,
    ),
    Entry(
        "ns_silent",
        "Every DNS server gets the question, and none answers.",
        ns_silent.rule,
        about_silence=True,
    ),
    Entry(
        "no_nameserver",
        "resolv.conf names no server, so the resolver asks 127.0.0.1.",
        no_nameserver.rule,
        explains=frozenset({"ns_refused", "ns_silent", "ns_unreachable"}),
    ),
    Entry(
        "stale_resolv_conf",
        "The process still asks a server that resolv.conf no longer names.",
        stale_resolv_conf.rule,
        explains=WRONG_SERVER,
    ),
    Entry("hosts_file_huge", "The time goes into reading /etc/hosts.", hosts_file_huge.rule),
    Entry("mdns_timeout", "Nobody on the link owns this name; multicast waits it out.", mdns_timeout.rule),
    Entry(
        "bypass",
        "The application asks servers of its own; resolv.conf plays no part.",
        bypass.rule,
        bypass.of_connect,
        explains=WRONG_SERVER,
    ),
    Entry(
        "ipv6_first_blackholed",
        "IPv6 is tried first and goes nowhere; IPv4 would work.",
        connect_rule=ipv6_first_blackholed.rule,
    ),
    Entry(
        "connect_after_dns",
        "The name was resolved; the connection to its address hangs.",
        connect_rule=connect_after_dns.rule,
    ),
    Entry(
        "tls_stall",
        "The TCP connection is up; the TLS handshake gets no answer.",
        connect_rule=tls_stall.rule,
    ),
    Entry("child_process", "The traced process waits for a child, which has the lookup.", child_process.rule),
    Entry(
        "agent_blind",
        "Probes were missing or events were lost: nothing can be said.",
        agent_blind.rule,
        last_resort=True,
    ),
    Entry(
        "unknown",
        "What was seen fits no cause.",
        unknown.rule,
        connect_rule=unknown.of_connect,
        last_resort=True,
    ),
)

#: What `cause.id` can be.
IDS: tuple[str, ...] = tuple(entry.id for entry in CATALOGUE)
