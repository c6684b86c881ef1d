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
MAX_NDOTS = 15
#: resolver → the largest timeout and attempts that it obeys: resolv/resolv.h, musl's resolvconf.c
LIMITS = {"glibc": (30, 5), "musl": (60, 10)}
UNLIMITED = (1 << 30, 1 << 30)
MAX_SERVERS = 3
BOTH_FAMILIES = 2
GLIBC_TRIES_IN_SILENCE = 2


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one name that is asked for in both families."""

    names: tuple[str, ...]  # in the order in which they are tried
    questions: int  # when every server stays silent on the last name, and says no such name to the others
    silent_s: float | None  # when no server answers anything; None: whose schedule it is is not known
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
    max_timeout_s, max_attempts = UNLIMITED if resolver == "go" else LIMITS.get(resolver, LIMITS["glibc"])
    timeout_s = max(1, option(options, "timeout", DEFAULT_TIMEOUT_S, max_timeout_s))
    attempts = max(1, option(options, "attempts", DEFAULT_ATTEMPTS, max_attempts))
    names = names_tried(name, conf.get("search") or (), ndots)
    asked = BOTH_FAMILIES * servers * attempts
    questions = BOTH_FAMILIES * (len(names) - 1) + asked
    silent_s, text = _silence(resolver, len(names), timeout_s, attempts, servers)
    return Cost(names, questions, silent_s, text)


def _silence(
    resolver: str, names: int, timeout_s: int, attempts: int, servers: int
) -> tuple[float | None, str]:
    """How long until the program hears that nobody answers, and why that long."""
    rounds = "1 round" if attempts == 1 else f"{attempts} rounds"
    over = f"{rounds} over {'1 server' if servers == 1 else f'{servers} servers'}"
    if resolver == "musl":
        return timeout_s, f"musl gives up after {timeout_s} s, however many servers there are"
    if resolver == "glibc":
        # After silence glibc goes on to one more name: the name itself, or the first suffix.
        tried = min(names, GLIBC_TRIES_IN_SILENCE)
        one_name_s = attempts * sum(glibc_visit_s(n, timeout_s, servers) for n in range(servers))
        return tried * one_name_s, f"glibc gives up after {tried * one_name_s} s: {over}{_times(tried)}"
    if resolver == "go":
        silent_s = names * attempts * timeout_s * servers
        return silent_s, f"Go gives up after {silent_s} s: {over}{_times(names)}"
    return None, "when it gives up is not known, as whose code resolves is not"


def _times(names: int) -> str:
    return f", for {names} names" if names > 1 else ""


def glibc_visit_s(number: int, timeout_s: int, servers: int) -> int:
    """How long glibc waits for server `number`, from 0: res_send.c shifts, and divides by the servers."""
    if not number:
        return timeout_s
    return max(1, (timeout_s << number) // servers)
