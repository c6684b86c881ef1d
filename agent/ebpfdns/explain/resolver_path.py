"""Which way a lookup of the process takes, step by step, in words.

Owns: what each source of names is, and in which order it is asked. Must not know: whether it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    Facts = Mapping[str, Any]

#: source in nsswitch.conf → what asking it means
SOURCES = {
    "files": "reads /etc/hosts, line by line, each time",
    "dns": "asks the nameservers of resolv.conf",
    "resolve": "asks systemd-resolved over its local socket, for up to 120 s",
    "mymachines": "asks systemd-machined for local containers",
    "myhostname": "answers for this host's own names",
    "mdns": "asks Avahi (multicast) for any name",
    "mdns4": "asks Avahi (multicast, IPv4) for any name",
    "mdns_minimal": "asks Avahi (multicast) for .local names",
    "mdns4_minimal": "asks Avahi (multicast, IPv4) for .local names",
    "sss": "asks sssd over its pipe",
    "ldap": "asks an LDAP server",
    "wins": "asks Samba's winbind",
    "nis": "asks a NIS server",
    "db": "reads a database file",
    "compat": "as files",
}
ACTIONS = {
    "[NOTFOUND=RETURN]": "a name it does not know ends the lookup",
    "[!UNAVAIL=RETURN]": "any answer ends it",
}
#: what glibc takes when there is no hosts line: nss/nsswitch.c
DEFAULT_GLIBC = ("dns", "[!UNAVAIL=return]", "files")
MUSL = ("files", "dns")


def steps(facts: Facts) -> list[dict[str, str]]:
    """[{source, text}]: each source in the order it is asked, an action between two told with the first."""
    words = _words(facts)
    found: list[dict[str, str]] = []
    for word in words:
        if word.startswith("["):
            if found:
                found[-1]["text"] += f"; {word}: {ACTIONS.get(word.upper(), 'an action of its own')}"
            continue
        text = SOURCES.get(word, "asks the module of this name")
        if word == "dns":
            text += _servers(facts)
        found.append({"source": word, "text": text})
    return found


def why(facts: Facts) -> str:
    """Whose code resolves, in a sentence."""
    choice = facts.get("go_choice")
    if choice is None:
        return _why(facts)
    whose = (
        "Go's own resolver" if choice.resolver == "go" else f"the resolver of {facts.get('libc') or 'libc'}"
    )
    return f"It is a Go program and takes {whose}: {'; '.join(choice.why)}."


def _why(facts: Facts) -> str:
    """The same of one that is not Go's, or whose choice is not known."""
    libc, resolver = facts.get("libc"), facts.get("resolver")
    if facts.get("go") and libc:
        return f"It is a Go program with {libc}: Go's own resolver or libc's, chosen for each lookup."
    if resolver == "go":
        return "It is a Go program without a libc: Go's own resolver, which asks the nameservers in order."
    if facts.get("static") and libc:
        return f"It has {libc} linked in, which asks its sources by itself."
    if resolver == "musl":
        return f"It uses {libc or 'musl'}, which reads /etc/hosts, then asks all nameservers at once."
    if resolver == "glibc":
        has_file = (facts.get("nsswitch") or {}).get("present")
        how = "as nsswitch.conf says" if has_file else "by its built-in order (there is no nsswitch.conf)"
        return f"It uses {libc or 'glibc'}, which asks its sources {how}."
    return "Which code resolves names for it is not known: no libc was found in it."


def _words(facts: Facts) -> tuple[str, ...]:
    choice = facts.get("go_choice")
    if choice is not None and choice.sources:
        return tuple(choice.sources.split(","))
    if facts.get("resolver") == "musl":
        return MUSL
    nsswitch = facts.get("nsswitch")
    if nsswitch is None:
        return ()
    words = tuple(nsswitch.get("hosts") or ())
    if facts.get("resolver") == "go":
        return _go_words(words)
    return words or DEFAULT_GLIBC


def _go_words(words: tuple[str, ...]) -> tuple[str, ...]:
    """Go has files and dns of its own; without libc it asks DNS in place of all other sources."""
    own = tuple(word for word in words if word in MUSL)
    if not words:
        return MUSL
    return own if "dns" in own or set(words) == {"files"} else (*own, "dns")


def _servers(facts: Facts) -> str:
    servers = (facts.get("resolv_conf") or {}).get("nameservers") or ["127.0.0.1"]
    return f": {', '.join(servers[:3])}"
