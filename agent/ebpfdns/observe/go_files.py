"""resolv.conf and nsswitch.conf as Go reads them: what in them Go does not know, and the sources of hosts.

Owns: Go's own syntax of these files, which is not libc's. Must not know: what Go makes of it.
"""

from __future__ import annotations

import re
from typing import Any

FIRST_MORE_OPTIONS = (1, 20)
KEYWORDS = frozenset({"nameserver", "domain", "search", "options", "lookup"})
OPTIONS = frozenset({"rotate", "single-request", "single-request-reopen", "use-vc", "usevc", "tcp"})
LATER_OPTIONS = frozenset({"trust-ad", "edns0", "no-reload"})
NUMBERED = ("ndots:", "timeout:", "attempts:")
#: getFields, trimSpace of net/parse.go: no other character counts as space
_SPACE = " \r\t\n"
_FIELD = re.compile(r"[^ \r\t\n]+")
MIN_CRITERION = 3

Facts = dict[str, Any]


def unknown_in(resolv_conf: str, version: tuple[int, int]) -> str | None:
    """The first thing that Go does not know: `options debug`, `sortlist`; None when it knows all of it."""
    known = OPTIONS | LATER_OPTIONS if version >= FIRST_MORE_OPTIONS else OPTIONS
    for line in resolv_conf.split("\n"):
        words: list[str] = [] if line.startswith((";", "#")) else _FIELD.findall(line)
        if words and words[0] not in KEYWORDS:
            return words[0]
        for option in words[1:] if words and words[0] == "options" else ():
            if option not in known and not option.startswith(NUMBERED):
                return f"options {option}"
    return None


def sources_of(nsswitch: str) -> Facts:
    """{error, sources}: [[source, [[negated, status, action] …]] …] of its hosts; what Go stumbles on."""
    found: list[list[Any]] = []
    for raw in nsswitch.split("\n"):
        line = raw.partition("#")[0].strip(_SPACE)
        database, colon, rest = line.partition(":")
        if not line:
            continue
        if not colon:
            return {"error": "no colon on line", "sources": found}
        error = _read_sources(rest, found if database.strip(_SPACE) == "hosts" else [])
        if error is not None:
            return {"error": error, "sources": found}
    return {"error": None, "sources": found}


def _read_sources(text: str, found: list[list[Any]]) -> str | None:
    """Add the sources of one line; what is wrong with it. Only a blank ends a source, a tab does not."""
    rest = text.strip(_SPACE)
    while rest:
        source, _, rest = rest.partition(" ")
        rest = rest.strip(_SPACE)
        criteria: list[list[Any]] | None = []
        if rest.startswith("["):
            inside, bracket, rest = rest[1:].partition("]")
            if not bracket:
                return "unclosed criterion bracket"
            criteria = _criteria(inside)
            if criteria is None:
                return f"invalid criteria: {inside}"
        found.append([source, criteria])
        rest = rest.strip(_SPACE)
    return None


def _criteria(text: str) -> list[list[Any]] | None:
    """[[negated, status, action] …]; None when one is none."""
    found: list[list[Any]] = []
    for word in (part.strip(_SPACE) for part in text.strip(_SPACE).split(" ")):
        if not word:
            continue
        bare = word.removeprefix("!")
        status, equals, action = _lower(bare).partition("=")
        if len(bare) < MIN_CRITERION or not equals:
            return None
        found.append([bare != word, status, action])
    return found


def _lower(text: str) -> str:
    """ASCII letters only."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)
