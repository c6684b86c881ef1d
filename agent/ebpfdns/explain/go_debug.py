"""What GODEBUG says about resolving: `netdns=go`, `cgo`, `go+2`, `1`.

Owns: its syntax, which changed over time, and which of its two places wins. Must not know: what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "netdns"
FIRST_LAST_WINS = (1, 20)  # before, the first setting of a name counted
FIRST_PATTERNS = (1, 21)  # VALUE#PATTERN; and defaults in the program, by //go:debug


@dataclass(frozen=True, slots=True)
class Mode:
    """`word`: go, cgo, anything else that Go does not know, or nothing."""

    word: str
    text: str  # as it is to be said
    is_unknown: bool = False  # the environment was not seen


def mode_of(facts: Mapping[str, Any], version: tuple[int, int]) -> Mode:
    """What is asked for; the environment wins over what is built in."""
    environment = facts.get("environment")
    value = None if environment is None else setting(environment.get("GODEBUG", ""), version)
    if value is not None:
        return Mode(word_of(value), f"GODEBUG={KEY}={value} in its environment")
    built_in = (facts.get("settings") or {}).get("DefaultGODEBUG", "")
    value = setting(built_in, version) if version >= FIRST_PATTERNS else None
    text = f"GODEBUG {KEY}={value}, built into it by //go:debug,"
    return Mode(word_of(value or ""), text, is_unknown=environment is None)


def setting(godebug: str, version: tuple[int, int]) -> str | None:
    """The value of netdns in a GODEBUG; None when it has none."""
    pairs = (part.partition("=") for part in godebug.split(","))
    values = [value for key, equals, value in pairs if key == KEY and equals]
    if not values:
        return None
    value = values[-1 if version >= FIRST_LAST_WINS else 0]
    return value.partition("#")[0] if version >= FIRST_PATTERNS else value


def word_of(value: str) -> str:
    """Go of `go`, `go+2`, `2+go`: what begins with a digit is how much Go prints. Of two words the last."""
    left, _, right = value.partition("+")
    return next((part for part in (right, left) if part and not "0" <= part[0] <= "9"), "")
