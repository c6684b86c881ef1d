"""What a diagnosis is: a cause, how sure it is, and the facts it rests on.

Owns: the types Cause and Evidence, the ids of facts, and the order of confidences.
Must not know: any rule, or how facts were observed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Confidence = Literal["possible", "likely", "confirmed"]
Scalar = int | float | str | bool | None
#: Named with their units: waited_ms, rx_queue_bytes.
Numbers = dict[str, Scalar]

#: From the weakest to the strongest.
CONFIDENCES: tuple[Confidence, ...] = ("possible", "likely", "confirmed")

#: Every fact that evidence may name, by what it was observed on. One fact, one observation.
FACTS = frozenset(
    {
        # the wire
        *("query_sent", "no_reply", "reply_seen", "reply_late", "reply_mismatch", "reply_truncated"),
        *("reply_dropped", "edns_unanswered", "small_answers_pass"),
        "fragments_incomplete",
        *("rcode_error", "one_type_unanswered", "search_step", "retried_serially"),
        # results of system calls
        *("send_refused_eperm", "connect_no_route", "fd_limit_hit", "blocked_in_syscall"),
        "conntrack_full",
        "futex_wait_no_timeout",
        # sockets
        *("rx_queue_not_empty", "rx_queue_empty", "tx_queue_not_acked", "syn_retransmitted", "socket_error"),
        *("tls_hello_unanswered", "tx_queue_acked", "ipv4_connected", "ipv4_not_tried"),
        *("peer_rx_queue_not_empty", "listener_backlog_full", "unix_peer_waited_for"),
        # daemons behind the one that was asked
        *(
            "hop_found",
            "upstream_no_reply",
            "dot_hello_unanswered",
            "dot_silent",
            "dot_opportunistic",
            "dnssec_validated",
            "upstream_answered",
        ),
        # processes
        *(
            "thread_running_elsewhere",
            "event_loop_away",
            "process_stopped",
            "cpu_throttled",
            "peer_stopped",
            "child_has_lookup",
        ),
        *("forked_without_exec", "thread_limit_reached", "leader_lookup"),
        # configuration
        *("server_not_in_resolv_conf", "resolv_conf_empty", "resolv_conf_changed", "nss_source_before_dns"),
        *("ndots_search", "hosts_file_size", "dot_strict", "resolver_schedule"),
        # the tracer itself
        *("probe_missing", "events_lost", "attached_late"),
    }
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One observed fact: its stable id, a sentence, and the numbers it rests on."""

    fact: str
    text: str
    numbers: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a lookup or connect takes so long, or failed."""

    id: str
    confidence: Confidence
    summary: str
    evidence: tuple[Evidence, ...]
    remedy: str

    def at_most(self, limit: Confidence) -> Cause:
        """The same, no surer than this."""
        return replace(self, confidence=weaker(self.confidence, limit))

    def at_least(self, limit: Confidence) -> Cause:
        """The same, as sure as it was once seen."""
        return replace(self, confidence=max(self.confidence, limit, key=CONFIDENCES.index))

    def with_evidence(self, *more: Evidence) -> Cause:
        """The same, with more facts after those it has."""
        return replace(self, evidence=(*self.evidence, *more))


def weaker(one: Confidence, other: Confidence) -> Confidence:
    """The less sure of the two."""
    return min(one, other, key=CONFIDENCES.index)


def one_step_down(confidence: Confidence) -> Confidence:
    """What is left of a confidence when evidence was lost; never less than possible."""
    return CONFIDENCES[max(0, CONFIDENCES.index(confidence) - 1)]
