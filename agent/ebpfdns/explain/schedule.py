"""How many questions one name may cost, and how long it takes when nobody answers: by resolver and options.

Owns: the search list, ndots, rounds and time-outs of glibc, musl and Go, as they have been measured.
Must not know: whether any server answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_NDOTS, DEFAULT_TIMEOUT_S, DEFAULT_ATTEMPTS = 1, 5, 2
MAX_NDOTS, MAX_TIMEOUT_S, MAX_ATTEMPTS = 15, 30, 5
MAX_SERVERS = 3
BOTH_FAMILIES = 2
GO_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one name that is asked for in both families."""

    names: tuple[str, ...]  # in the order in which they are tried
    questions: int  # when every server stays silent on the last name, and says no such name to the others
    silent_s: float  # when no server answers anything, for the first name: nothing else is tried then
    nothing_answers: str  # the same in words


def option(options: Sequence[str], keyword: str, default: int, limit: int) -> int:
    """The number behind `KEYWORD:`, the last one; within its bounds as resolv.conf(5) has them."""
    for word in reversed(options):
        name, _, value = word.partition(":")
        if name == keyword and value.isascii() and value.isdigit():
            return min(int(value), limit)
    return default


def names_tried(name: str, search: Sequence[str], ndots: int) -> tuple[str, ...]:
    """What is asked for when a program looks up `name`: with few dots each suffix first, then itself."""
    if name.endswith("."):
        return (name,)
    suffixed = tuple(f"{name}.{domain.strip('.')}" for domain in search if domain.strip("."))
    itself = (name,)
    return itself + suffixed if name.count(".") >= ndots else suffixed + itself


def cost(name: str, conf: Mapping[str, Any], resolver: str) -> Cost:
    """What `name` costs with this resolv.conf."""
    options = conf.get("options") or ()
    servers = min(len(conf.get("nameservers") or ()) or 1, MAX_SERVERS)
    ndots = option(options, "ndots", DEFAULT_NDOTS, MAX_NDOTS)
    timeout_s = max(1, option(options, "timeout", DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S))
    attempts = max(1, option(options, "attempts", DEFAULT_ATTEMPTS, MAX_ATTEMPTS))
    names = names_tried(name, conf.get("search") or (), ndots)
    asked = BOTH_FAMILIES * servers * attempts
    questions = BOTH_FAMILIES * (len(names) - 1) + asked
    if resolver == "musl":
        silent_s: float = timeout_s
        text = f"musl gives up after {silent_s:g} s, however many servers there are"
    else:
        silent_s = attempts * sum(glibc_visit_s(n, timeout_s, servers) for n in range(servers))
        over = "1 server" if servers == 1 else f"{servers} servers"
        text = f"glibc gives up after {silent_s:g} s: {attempts} rounds over {over}"
    return Cost(names, questions, silent_s, text)


def glibc_visit_s(number: int, timeout_s: int, servers: int) -> int:
    """How long glibc waits for server `number`, from 0: res_send.c shifts, and divides by the servers."""
    if not number:
        return timeout_s
    return max(1, (timeout_s << number) // servers)
