"""What the answers by several ways say together: which hop is broken, and whether another way would help.

Owns: these conclusions. Must not know: how the questions were sent. Only what was tried is concluded from.

`answers`: one dict a way, as `observe.asking` gives it: role, rules, server,
transport, edns, outcome, rcode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Answer = Mapping[str, Any]

#: What a server said is an answer also when it says that there is no such name.
GOOD = frozenset({"answered", "no_such_name", "no_address"})


@dataclass(frozen=True, slots=True)
class Conclusion:
    """One thing that the answers show."""

    id: str
    text: str
    remedy: str | None = None


def conclusions(answers: Sequence[Answer]) -> list[Conclusion]:
    """The most telling one first."""
    asked = [answer for answer in answers if answer["role"] != "rules"]
    found = [one for rule in RULES for one in rule(asked)]
    found += _rules_differ(answers)
    return found or [_plain(asked)]


def _by_server(asked: Sequence[Answer], role: str) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    for answer in asked:
        if answer["role"] == role:
            found.setdefault(answer["server"], []).append(answer)
    return found


def _is_good(answers: Sequence[Answer], transport: str, *, edns: bool | None = None) -> bool | None:
    """Whether this way of asking a server works; None: it was not tried."""
    tried = [
        answer["outcome"] in GOOD
        for answer in answers
        if answer["transport"] == transport and edns in (None, answer["edns"])
    ]
    return any(tried) if tried else None


def _stub(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    """The server of resolv.conf fails, and one behind it answers when it is asked directly."""
    working = [server for server, found in _by_server(asked, "uplink").items() if _is_good(found, "udp")]
    for server, found in _by_server(asked, "nameserver").items():
        if working and not _is_good(found, "udp"):
            yield Conclusion(
                "stub_is_broken",
                f"{server} does not answer, and {working[0]}, which it has to ask, answers at once when it is"
                " asked directly: the local resolver in between is the broken hop.",
                f"another forwarder that asks {working[0]} (dnsmasq, unbound), or nameserver {working[0]}"
                " in resolv.conf",
            )


def _dot(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    for server, found in _by_server(asked, "uplink").items():
        if _is_good(found, "udp") and _is_good(found, "dot") is False:
            yield Conclusion(
                "dot_is_blocked",
                f"{server} answers on port 53, and not over TLS on port 853: a resolver that must use"
                " DNS over TLS waits for it in vain.",
                "resolvectl dnsovertls LINK no, or open TCP port 853",
            )


def _tcp(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    for server, found in _all_servers(asked):
        if _is_good(found, "udp") and _is_good(found, "tcp") is False:
            yield Conclusion(
                "tcp_is_blocked",
                f"{server} answers over UDP, and not over TCP: names whose answers are long will hang.",
                "open TCP port 53",
            )


def _edns(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    for server, found in _all_servers(asked):
        if _is_good(found, "udp", edns=False) and _is_good(found, "udp", edns=True) is False:
            yield Conclusion(
                "edns_is_dropped",
                f"{server} answers plain questions, and not those with EDNS0, as Go's resolver sends them.",
                "GODEBUG=netedns0=0 for Go programs (1.22 and newer), no `options edns0` for others",
            )


def _silent(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    servers = list(_all_servers(asked))
    works = [server for server, found in servers if any(answer["outcome"] in GOOD for answer in found)]
    for server, found in servers:
        if works and server not in works and found[0]["role"] == "nameserver":
            yield Conclusion(
                "server_is_dead",
                f"{server} answers in no way, and {works[0]} does: who asks {server} first waits.",
                f"take {server} out of resolv.conf",
            )


def _errors(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    for server, found in _all_servers(asked):
        codes = {answer["rcode"] for answer in found if answer["outcome"] == "error_code"}
        if len(codes) == 1 and all(answer["outcome"] == "error_code" for answer in found if answer["rcode"]):
            yield Conclusion(
                "server_says_error",
                f"{server} answers {codes.pop()} in every way it was reached.",
                f"dig +cd @{server} NAME: an answer then means that DNSSEC fails",
            )


def _differ(asked: Sequence[Answer]) -> Iterator[Conclusion]:
    outcomes = {answer["outcome"] for answer in asked if answer["outcome"] in GOOD}
    if len(outcomes) > 1:
        yield Conclusion(
            "answers_differ",
            "The servers do not agree whether the name exists: which one a program asks decides.",
        )


def _rules_differ(answers: Sequence[Answer]) -> Iterator[Conclusion]:
    """Of the two sets of rules that programs follow on this host one works."""
    works = {answer["rules"]: answer["outcome"] in GOOD for answer in answers if answer["role"] == "rules"}
    if works.get("libc") and works.get("go") is False:
        yield Conclusion(
            "only_libc_works",
            "By libc's rules the name is found, by Go's it is not.",
            "GODEBUG=netdns=cgo for Go programs",
        )
    if works.get("go") and works.get("libc") is False:
        yield Conclusion(
            "only_go_works",
            "By Go's rules the name is found, by libc's it is not.",
            "GODEBUG=netdns=go for Go programs that use cgo",
        )


def _all_servers(asked: Sequence[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    for role in ("nameserver", "uplink"):
        yield from _by_server(asked, role).items()


def _plain(asked: Sequence[Answer]) -> Conclusion:
    if all(answer["outcome"] in GOOD for answer in asked):
        return Conclusion("all_answer", "Every way answers: no hop is broken for this name right now.")
    if not any(answer["outcome"] in GOOD for answer in asked):
        return Conclusion(
            "none_answers",
            "No way answers: no other resolver on this host would help. It is the network, or the servers.",
        )
    return Conclusion("some_answer", "Some ways answer, others do not.")


RULES: tuple[Callable[[Sequence[Answer]], Iterator[Conclusion]], ...] = (
    _stub,
    _dot,
    _silent,
    _errors,
    _edns,
    _tcp,
    _differ,
)
