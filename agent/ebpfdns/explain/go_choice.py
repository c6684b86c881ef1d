"""Which of Go's two resolvers a lookup takes, and what decided that: net/conf.go of every Go since 1.18.

Owns: the order in which Go itself looks at its build, its environment and its files.
Must not know: how any of them is read.

Go has its own resolver, and can call the C library's (cgo). Three generations decide differently:

    1.18, 1.19   read resolv.conf and nsswitch.conf once, at the first lookup
    1.20         reads them again when they change; the same questions otherwise
    from 1.21    asks for what was forced first, so that a forced resolver never depends on a file;
                 from 1.23 on a name below .local is libc's only where nsswitch.conf lists mdns

`facts`: what `observe.go_surroundings` gives. A part that is None was not seen: where it decides, the choice
is not known (None), never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ebpfdns.correlate.redaction import is_redacted
from ebpfdns.explain import go_debug, go_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ebpfdns.model.facts import Lookup

    Facts = Mapping[str, Any]

Resolver = Literal["go", "cgo"]

FIRST_REREADING, FIRST_FORCED_FIRST, FIRST_LOCAL_BY_MDNS = (1, 20), (1, 21), (1, 23)
#: resolv.conf that is not there, or forbidden, or a directory, says nothing to Go; any other error is libc's
MUTE = frozenset({None, "ENOENT", "EACCES", "EPERM", "EISDIR"})
FILES = {"resolv_conf": "resolv.conf", "nsswitch": "nsswitch.conf"}
ODD_CHARACTERS = ("\\", "%")
#: settings of libc's resolver; the first one also when it is empty
VARIABLES = ("LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES")


@dataclass(frozen=True, slots=True)
class Choice:
    """What Go does with one name, or with an ordinary one."""

    resolver: Resolver | None  # None: something that decides was not seen
    sources: str | None  # in Go's own words: files,dns · dns,files · files · dns; of libc it knows nothing
    why: tuple[str, ...]  # what decided, each a sentence


def choose(facts: Facts, name: str | None = None) -> Choice:
    """What becomes of `name`; None: of an ordinary name, with nothing odd in it, and not this host's own."""
    version = _version(facts)
    has_cgo, built = _has_cgo(facts)
    if version is None or has_cgo is None:
        return Choice(None, None, ("how it was built was not seen",))
    mode = go_debug.mode_of(facts, version)
    if not has_cgo:
        ignored = (f"{mode.text} is ignored",) if mode.word == "cgo" else ()
        return _own(facts, (built, *ignored), version, is_forced=version >= FIRST_FORCED_FIRST)
    if mode.word == "go":
        return _own(facts, (f"{mode.text} forces Go's own resolver",), version, is_forced=True)
    return _cgo_or_own(facts, name, version, mode)


def observed(facts: Facts, name: str | None, resolver: Resolver | None) -> Choice:
    """The same where the kernel saw which one it took: that is the truth, and the rest explains it."""
    found = choose(facts, name)
    if resolver is None or found.resolver in {None, resolver}:
        return Choice(resolver or found.resolver, found.sources if resolver != "cgo" else None, found.why)
    if resolver == "go":
        asked = "the program asked for Go's own resolver (net.Resolver.PreferGo)"
        return Choice("go", None, (f"{asked}, or what decides was changed: {found.why[-1]}",))
    changed = "what decides was changed since it was read"
    by_name = "the name itself, which is not known here, sends it to libc's resolver, or "
    return Choice("cgo", None, (changed if name is not None else by_name + changed,))


def coverage(facts: Facts) -> dict[str, Any]:
    """`go_resolver` of a process, and why: of an ordinary name."""
    found = choose(facts)
    return {"go_resolver": found.resolver, "go_resolver_why": list(found.why)}


def of_lookup(facts: Facts, lookup: Lookup) -> dict[str, Any]:
    """`go_resolver` of a lookup that Go code asked for; nothing for others."""
    if not facts or lookup.api not in {"go", "cgo"}:
        return {}
    # Before anybody is asked either may come: only a question tells its own resolver.
    took: Resolver | None = "cgo" if lookup.api == "cgo" else "go" if lookup.queries else None
    is_known = lookup.name is not None and not is_redacted(lookup.name)
    name = (lookup.name or b"").decode("utf-8", "backslashreplace") if is_known else None
    found = observed(facts, name, took)
    return {"go_resolver": {"choice": found.resolver, "why": list(found.why)}}


def _version(facts: Facts) -> tuple[int, int] | None:
    numbers = facts.get("version")
    return None if not numbers else (int(numbers[0]), int(numbers[1]))


def _settings(facts: Facts) -> Mapping[str, str]:
    return facts.get("settings") or {}


def _tags(facts: Facts) -> set[str]:
    return set(re.split(r"[,\s]+", _settings(facts).get("-tags", "")))


def _has_cgo(facts: Facts) -> tuple[bool | None, str]:
    """Whether it can call libc's resolver, and the sentence that says why not."""
    enabled, has_calls = _settings(facts).get("CGO_ENABLED"), facts.get("has_cgo_lookup")
    if "netgo" in _tags(facts):
        return False, "it was built with the tag netgo: it has Go's own resolver only"
    if enabled == "0":
        return False, "it was built with CGO_ENABLED=0: it has Go's own resolver only"
    if has_calls is None:
        return (True if enabled == "1" else None), ""
    return bool(has_calls), "it was built without cgo's lookup functions: it has Go's own resolver only"


def _forced_cgo(facts: Facts, mode: go_debug.Mode) -> str | None:
    """What asks for libc's resolver before any file is looked at."""
    if "netcgo" in _tags(facts):
        return "it was built with the tag netcgo, which forces libc's resolver"
    if mode.word == "cgo":
        return f"{mode.text} forces libc's resolver"
    environment = facts.get("environment") or {}
    for variable in VARIABLES:
        value = environment.get(variable)
        if value or (value is not None and variable == "LOCALDOMAIN"):
            return f"{variable} is set in its environment: that is for libc's resolver"
    return None


def _own(facts: Facts, why: tuple[str, ...], version: tuple[int, int], *, is_forced: bool) -> Choice:
    """Go's own resolver without a choice: only the order of its sources is open."""
    sources = go_sources.forced_order(facts.get("nsswitch"), version) if is_forced else None
    return Choice("go", sources, why)


def _cgo_or_own(facts: Facts, name: str | None, version: tuple[int, int], mode: go_debug.Mode) -> Choice:
    """Either may be taken."""
    forced = _forced_cgo(facts, mode)
    if mode.is_unknown:
        return Choice(None, None, ("its environment may not be read, which may force one of the resolvers",))
    if forced is not None:
        return Choice("cgo", None, (forced,))
    found = _by_name(name, version) or _by_files(facts, name, version)
    if found.resolver == "go" and _settings(facts).keys().isdisjoint({"CGO_ENABLED", "-tags"}):
        return Choice(None, None, ("it has no build settings: the tag netcgo may force libc's resolver",))
    return found


def _by_name(name: str | None, version: tuple[int, int]) -> Choice | None:
    """Nothing forces one of them: some names are libc's."""
    odd = next((one for one in ODD_CHARACTERS if one in (name or "")), None)
    if odd is not None:
        return Choice("cgo", None, (f"the name has a {odd} in it: libc may understand that",))
    if version < FIRST_LOCAL_BY_MDNS and go_sources.is_local((name or "").removesuffix(".")):
        return Choice("cgo", None, ("a name below .local is left to libc, which may ask by multicast",))
    return None


def _by_files(facts: Facts, name: str | None, version: tuple[int, int]) -> Choice:
    """The last word is the files'."""
    unseen = [file for key, file in FILES.items() if facts.get(key) is None]
    doubt = f"{unseen[0]} may not be read, which may ask for libc's resolver" if unseen else None
    doubt = doubt or _changed_since(facts, version)
    if doubt is not None:
        return Choice(None, None, (doubt,))
    conf = facts["resolv_conf"]
    if conf.get("error") not in MUTE:
        return Choice("cgo", None, (f"resolv.conf cannot be read ({conf['error']}): that is left to libc",))
    if conf.get("unknown"):
        return Choice("cgo", None, (f"resolv.conf has {conf['unknown']}, which Go does not know",))
    host = None if name is None else name.removesuffix(".")
    verdict = go_sources.verdict(facts, host, version)
    return Choice(verdict.resolver, verdict.order if verdict.resolver == "go" else None, (verdict.why,))


def _changed_since(facts: Facts, version: tuple[int, int]) -> str | None:
    """Of a Go that reads its files once: that one of them is newer than the process."""
    if version >= FIRST_REREADING:
        return None
    newer = next((file for key, file in FILES.items() if facts[key].get("is_newer")), None)
    if newer is None:
        return None
    reads = f"Go {version[0]}.{version[1]} reads it once, at the first lookup"
    return f"{newer} was changed after the program began, and {reads}"
