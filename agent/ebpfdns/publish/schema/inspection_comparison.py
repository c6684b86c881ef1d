"""The shape of `comparison` in what `ebpfdns inspect --name NAME` prints: one name, asked for by every way.

Owns: these fields. Must not know: how the questions were sent.
"""

from __future__ import annotations

from ebpfdns.publish.schema.terms import (
    Schema,
    choice,
    count,
    flag,
    items,
    measure,
    or_null,
    record,
    text,
)

ROLES = {
    "rules": "as a resolver goes through servers and search list.",
    "nameserver": "one of resolv.conf, alone.",
    "uplink": "one behind the local stub, or given by --server.",
}
TRANSPORTS = {"udp": "port 53.", "tcp": "port 53.", "dot": "TLS, port 853; the certificate is not checked."}
OUTCOMES = {
    "answered": "with addresses.",
    "no_such_name": "NXDOMAIN.",
    "no_address": "the name exists, and has none.",
    "error_code": "another rcode.",
    "timed_out": "nothing came in time.",
    "refused": "nobody listens there.",
    "unreachable": "no way to it, or a firewall of this host.",
    "tls_failed": "connected, but no TLS session.",
    "failed": "anything else; `error` says what.",
}
CONCLUSIONS = {
    "stub_is_broken": "the local resolver fails, the server behind it answers.",
    "dot_is_blocked": "port 53 answers, port 853 does not.",
    "server_is_dead": "one nameserver answers in no way, another does.",
    "server_says_error": "the same error in every way.",
    "edns_is_dropped": "only questions without EDNS0 are answered.",
    "tcp_is_blocked": "only UDP is answered.",
    "answers_differ": "the servers do not agree whether the name exists.",
    "only_libc_works": "by Go's rules it fails.",
    "only_go_works": "by libc's rules it fails.",
    "all_answer": "nothing is broken right now.",
    "none_answers": "no way works.",
    "some_answer": "none of the above fits.",
}


def schema() -> Schema:
    """The object; null without --name: then nothing is sent."""
    conclusion = record(
        "One thing that the answers show.",
        {
            "id": choice("Stable.", CONCLUSIONS),
            "text": text("One sentence."),
            "remedy": or_null(text("What to do.")),
        },
    )
    fields = {
        "name": text("As it was given."),
        "notice": text("That questions were sent, and how many ways were tried."),
        "conclusions": items("The most telling one first.", conclusion, at_least=1),
        "answers": items("One for each way, all tried at the same time.", _answer()),
    }
    return record("The same name, asked for by every way of this host; null: not asked for.", fields)


def _answer() -> Schema:
    fields = {
        "role": choice("Which way.", ROLES),
        "rules": or_null(choice("Whose rules.", {"libc": "", "go": ""})),
        "server": text("The one that was asked last."),
        "port": count("Its port."),
        "transport": choice("How.", TRANSPORTS),
        "edns": flag("Whether the question had an OPT record (1,232 bytes)."),
        "name": text("The one that was asked for last."),
        "outcome": choice("What came of it.", OUTCOMES),
        "rcode": or_null(text("Of the answer.")),
        "truncated": {
            "type": ["boolean", "null"],
            "description": "Whether the answer was cut off; null: none.",
        },
        "addresses": items("Of the answer.", text("An address.")),
        "took_ms": measure("All its questions together."),
        "error": or_null(text("In the words of the system.")),
    }
    return record("What one way brought.", fields)
