"""Which of Go's resolvers is taken, from plain facts: what is forced, what files say, what was not seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.explain import go_choice, go_debug, go_sources
from ebpfdns.model.facts import Lookup, Query, Server
from ebpfdns.observe import go_files

PLAIN: dict[str, Any] = {
    "version": [1, 27, 3],
    "settings": {"CGO_ENABLED": "1"},
    "has_cgo_lookup": True,
    "environment": {},
    "resolv_conf": {"error": None, "unknown": None, "is_newer": False},
    "nsswitch": {"error": None, "sources": [["files", []], ["dns", []]], "is_newer": False},
    "mdns_allow": "ENOENT",
    "host_name": "ci-7",
}


ASKED = Query(Server("192.0.2.53", 53), "udp", 1)


def lookup(**fields: Any) -> Lookup:
    known: dict[str, Any] = {"api": "go", "name": b"www.example.com", "queries": (ASKED,)}
    return Lookup(1, 1, 4242, 4242, 4242, status="in_flight", **(known | fields))


def sources(text: str) -> dict[str, Any]:
    return {"nsswitch": go_files.sources_of(f"hosts: {text}\n")}


@pytest.mark.parametrize(
    ("changes", "name", "resolver", "word"),
    [
        ({}, None, "go", "neither nsswitch.conf nor resolv.conf"),
        ({"settings": {"CGO_ENABLED": "0"}, "has_cgo_lookup": None}, None, "go", "CGO_ENABLED=0"),
        ({"settings": {"CGO_ENABLED": "1", "-tags": "osusergo,netgo"}}, None, "go", "the tag netgo"),
        ({"settings": {"CGO_ENABLED": "1", "-tags": "netcgo"}}, None, "cgo", "the tag netcgo"),
        ({"settings": {}, "has_cgo_lookup": False}, None, "go", "without cgo's lookup functions"),
        ({"environment": {"GODEBUG": "netdns=go+2"}}, None, "go", "GODEBUG=netdns=go+2 in its environment"),
        ({"environment": {"GODEBUG": "netdns=1+cgo"}}, None, "cgo", "netdns=1+cgo"),
        ({"settings": {"CGO_ENABLED": "1", "DefaultGODEBUG": "netdns=cgo"}}, None, "cgo", "//go:debug"),
        ({"environment": {"LOCALDOMAIN": ""}}, None, "cgo", "LOCALDOMAIN"),
        ({"environment": {"RES_OPTIONS": ""}}, None, "go", "neither"),
        ({"environment": {"HOSTALIASES": "/a"}}, None, "cgo", "HOSTALIASES"),
        ({}, r"a\.example", "cgo", "the name has a \\"),
        ({}, "a%b", "cgo", "the name has a %"),
        ({"resolv_conf": {"error": "ELOOP", "unknown": None}}, None, "cgo", "ELOOP"),
        ({"resolv_conf": {"error": "EACCES", "unknown": None}}, None, "go", "neither"),
        ({"resolv_conf": {"error": None, "unknown": "sortlist"}}, None, "cgo", "resolv.conf has sortlist"),
        (sources("files resolve dns"), None, "cgo", "nsswitch.conf has resolve"),
        (sources("files [!UNAVAIL=return] dns"), None, "cgo", "an action behind files"),
        (sources("files mdns4 dns"), "a.LOCAL.", "cgo", "below .local"),
        (sources("files mdns4 dns"), "a.example", "go", "neither"),
        (sources("files dns"), "a.local", "go", "neither"),
        (sources("files mdns4 dns") | {"mdns_allow": ""}, None, "cgo", "mdns.allow"),
        (sources("files myhostname dns"), "CI-7", "cgo", "this host's own"),
        (sources("files myhostname dns"), "x.localhost", "cgo", "this host's own"),
        (sources("files myhostname dns"), "a.example", "go", "neither"),
    ],
)
def test_what_decides_is_named(changes, name, resolver, word):
    """Each thing that makes Go choose is found, and named in the reason."""
    found = go_choice.choose(PLAIN | changes, name)
    assert found.resolver == resolver
    assert word in " ".join(found.why)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": None},
        {"has_cgo_lookup": None, "settings": {}},
        {"settings": {}},  # the tag netcgo may be there
        {"environment": None},
        {"resolv_conf": None},
        {"nsswitch": None},
        sources("files mdns4 dns") | {"mdns_allow": None},
        {"version": [1, 19, 8], "resolv_conf": {"error": None, "unknown": None, "is_newer": True}},
    ],
)
def test_what_was_not_seen_is_not_guessed(changes):
    """Where something that decides may not be read, the choice is not known, and that is said."""
    found = go_choice.choose(PLAIN | changes, "www.example.com")
    assert found.resolver is None
    assert found.why


def test_unseen_names_of_the_host_matter_to_some_names_only():
    """What the host is called decides only where nsswitch.conf has myhostname, and nothing else decides."""
    unseen = PLAIN | {"host_name": None}
    assert go_choice.choose(unseen, "ci-7").resolver == "go"
    assert go_choice.choose(unseen | sources("myhostname files dns"), "ci-7").resolver is None
    assert go_choice.choose(unseen | sources("myhostname files dns"), None).resolver == "go"
    assert go_choice.choose(unseen | sources("myhostname resolve"), "ci-7").resolver == "cgo"


def test_releases_differ():
    """A .local name goes to libc before 1.23, trust-ad did before 1.20, and `gateway` had no underscore."""
    local = [go_choice.choose(PLAIN | {"version": [1, minor, 0]}, "a.local").resolver for minor in (22, 23)]
    assert local == ["cgo", "go"]
    assert go_files.unknown_in("options trust-ad", (1, 19)) == "options trust-ad"
    assert go_files.unknown_in("options trust-ad", (1, 20)) is None
    old = PLAIN | sources("files myhostname dns") | {"version": [1, 19, 8]}
    assert [go_choice.choose(old, name).resolver for name in ("gateway", "_gateway")] == ["cgo", "go"]


def test_an_ignored_wish_is_told():
    """GODEBUG=netdns=cgo does nothing to a program without cgo, and that is said."""
    facts = PLAIN | {"settings": {"CGO_ENABLED": "0"}, "environment": {"GODEBUG": "netdns=cgo"}}
    found = go_choice.choose(facts)
    assert found.resolver == "go"
    assert any("is ignored" in text for text in found.why)


@pytest.mark.parametrize(
    ("text", "older", "newer"),
    [
        ("netdns=go,netdns=cgo", "go", "cgo"),
        ("a=1,netdns=cgo#x", "cgo#x", "cgo"),
        ("xnetdns=go", None, None),
        ("netdns", None, None),
        ("", None, None),
    ],
)
def test_of_two_settings_one_counts(text, older, newer):
    """The first one before Go 1.20, the last one since; a pattern behind # is known since 1.21."""
    assert (go_debug.setting(text, (1, 19)), go_debug.setting(text, (1, 21))) == (older, newer)


@given(st.text(), st.sampled_from([(1, 19), (1, 27)]))
def test_any_file_is_understood(text, version):
    """No text of resolv.conf or nsswitch.conf is too odd."""
    found = go_files.sources_of(text)
    assert go_files.unknown_in(text, version) != ""
    facts = PLAIN | {"nsswitch": found, "version": [*version, 0]}
    assert go_choice.choose(facts, "www.example.com").resolver in {"go", "cgo"}
    assert go_sources.forced_order(found, (1, 27)) in {"files", "dns", "files,dns", "dns,files"}


def test_what_the_kernel_saw_is_the_truth():
    """A lookup that took another way than files ask for is told so: the program may have asked for it."""
    asked = lookup()
    told = go_choice.of_lookup(PLAIN | sources("resolve"), asked)["go_resolver"]
    assert told["choice"] == "go"
    assert "PreferGo" in told["why"][0]
    assert go_choice.of_lookup(PLAIN, lookup(api="cgo"))["go_resolver"]["choice"] == "cgo"


def test_before_a_question_the_way_is_what_is_decided():
    """A lookup that waits for another goroutine's has asked nobody: the verdict stands."""
    waits = lookup(queries=())
    assert go_choice.of_lookup(PLAIN | sources("resolve"), waits)["go_resolver"]["choice"] == "cgo"


def test_lookups_of_others_have_no_go_resolver():
    """A lookup by getaddrinfo, or in a program that Go did not build, says nothing of Go."""
    assert go_choice.of_lookup(PLAIN, lookup(api="getaddrinfo")) == {}
    assert go_choice.of_lookup({}, lookup()) == {}


def test_a_hashed_name_decides_nothing():
    """With --redact-names the verdict is that of an ordinary name."""
    hidden = lookup(name=b"redacted-0123456789abcdef")
    assert go_choice.of_lookup(PLAIN, hidden)["go_resolver"]["choice"] == "go"
