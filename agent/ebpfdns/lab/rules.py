"""The script of the DNS server: rules that say what happens to which query.

Owns: the names a script may use, which rule applies, and the reply it makes.
Must not know: sockets, delays passing, files. Pure.

A script is a list of objects. The first rule whose conditions all hold decides; without one: REFUSED.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from ebpfdns.errors import UsageError
from ebpfdns.lab import messages

REFUSED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Conditions (None holds always), one action, and how the reply differs from a good one."""

    # conditions
    type: str | None = None  # "A", "AAAA", …
    suffix: str | None = None  # of the name: "test" fits "test" and "a.test"
    transport: str | None = None  # "udp" or "tcp"
    server: str | None = None  # the address the query came to
    nth: int | None = None  # only the nth query (from 1) for this name, type, transport and server
    edns: bool | None = None  # with or without an OPT record
    # action: exactly one of these; an empty `answer` says "no such record"
    answer: tuple[str, ...] | None = None  # IPv4 and IPv6 addresses, names for PTR: the fitting ones are sent
    rcode: int | None = None
    drop: bool = False  # over TCP: the connection stays open and silent
    close: bool = False  # TCP: hang up instead of answering
    # how
    ttl_s: int = 60
    delay_ms: float = 0
    truncate: bool = False  # TC=1 and no records
    half: bool = False  # only the first half of the bytes, over TCP with the length of all
    flip_id: bool = False
    wrong_question: bool = False
    source: str | None = None  # answer from this address instead of the one asked (UDP)

    def holds(self, question: messages.Question, transport: str, server: str, nth: int) -> bool:
        """Whether every condition is met."""
        return (
            self.type in (None, question.type)
            and self.transport in (None, transport)
            and self.server in (None, server)
            and self.nth in (None, nth)
            and self.edns in (None, question.has_opt)
            and (self.suffix is None or _has_suffix(question.name, self.suffix))
        )

    def reply(self, query: bytes, question: messages.Question) -> bytes | None:
        """The bytes to send back; None for `drop` and `close`."""
        if self.drop or self.close:
            return None
        reply = messages.make_reply(
            query,
            question,
            rcode=self.rcode or 0,
            answers=self.answer or (),
            ttl_s=self.ttl_s,
            truncated=self.truncate,
        )
        if self.flip_id:
            reply = messages.with_flipped_id(reply)
        return messages.with_other_question(reply) if self.wrong_question else reply

    @property
    def is_plain(self) -> bool:
        """Whether equal queries get equal replies, at once, from the address asked: such may be kept."""
        unusual = (self.nth, self.source, self.delay_ms, self.drop, self.close, self.half)
        return not any(unusual)

    @property
    def action(self) -> str:
        """One word for the log."""
        named = {"drop": self.drop, "close": self.close, "rcode": self.rcode is not None}
        return next((word for word, is_set in named.items() if is_set), "answer")


FALLBACK = Rule(rcode=REFUSED)
FIELDS = frozenset(field.name for field in fields(Rule))


def parse(text: str) -> tuple[Rule, ...]:
    """Read a script: a JSON list of objects with the fields of `Rule`."""
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise UsageError(f"the script is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise UsageError("the script is not a JSON list of rules")
    return tuple(map(_rule, entries))


def choose(
    rules: tuple[Rule, ...], question: messages.Question, transport: str, server: str, nth: int
) -> Rule:
    """The first rule that holds; REFUSED when there is none."""
    return next((rule for rule in rules if rule.holds(question, transport, server, nth)), FALLBACK)


def _rule(entry: object) -> Rule:
    """One rule of a script, checked."""
    if not isinstance(entry, dict) or not FIELDS.issuperset(entry):
        raise UsageError(f"not a rule: {entry!r}", remedy=f"use only {', '.join(sorted(FIELDS))}")
    if "answer" in entry:
        entry = {**entry, "answer": tuple(entry["answer"])}
    rule = Rule(**entry)
    actions = sum((rule.answer is not None, rule.rcode is not None, rule.drop, rule.close))
    if actions + rule.truncate == 0 or actions > 1:
        raise UsageError(f"not exactly one action: {entry!r}", remedy="use one of answer, rcode, drop, close")
    return rule


def _has_suffix(name: str, suffix: str) -> bool:
    """Whether `suffix` is `name` or a parent of it; the empty suffix is the root."""
    lowered = suffix.strip(".").lower()
    return lowered in ("", name) or name.endswith(f".{lowered}")
