"""Every call of libc's resolver: one lookup each, by its own name, with what it asked and what it got."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import pytest
from play import Played, play
from program import of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.faults import GOOD_ANSWER, Fault, ServerPlan

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
V4, V6 = topology.WEB, topology.WEB_V6
PTR_V4 = "10.2.0.192.in-addr.arpa."
PTR_V6 = "0.1." + "0." * 22 + "8.b.d.0.1.0.0.2.ip6.arpa."
TINY = "--buffer-bytes 8"  # too small for any answer: the _r functions are called again and again
SERVER = ServerPlan((topology.SERVER_1,), ({"type": "PTR", "answer": [NAME]}, GOOD_ANSWER))
KNOWS_ALL = Fault(name="own", sentence="A server that knows names and addresses.", servers=(SERVER,))
ONLY_GLIBC = {"res_nquery", "res_nsearch", "getaddrinfo_a"}


class Call(NamedTuple):
    """What the program is told to do, and what the line must say."""

    words: str  # api, name, options
    asked: tuple[tuple[str, str], ...] = ((NAME + ".", "A"),)
    addresses: tuple[str, ...] | None = None
    family: str = "unspec"
    api: str | None = None  # by another name than it was called
    name: str = NAME
    service: str | None = None


BOTH_TYPES = ((NAME + ".", "A"), (NAME + ".", "AAAA"))
ONE_V6 = ((NAME + ".", "AAAA"),)
CALLS = [
    Call(f"getaddrinfo {NAME}", BOTH_TYPES, (V6, V4)),
    Call(f"getaddrinfo {NAME} --family inet", addresses=(V4,), family="inet"),
    Call(f"getaddrinfo {NAME} --family inet6", ONE_V6, (V6,), "inet6"),
    Call(f"getaddrinfo {NAME} --service 443", BOTH_TYPES, (V6, V4), service="443"),
    Call("getaddrinfo 192.0.2.1 --numeric-host", (), ("192.0.2.1",), name="192.0.2.1"),
    Call("getaddrinfo localhost", (), ("::1", "127.0.0.1"), name="localhost"),
    Call(f"getaddrinfo_a {NAME}", BOTH_TYPES, (V6, V4), api="getaddrinfo"),
    Call(f"gethostbyname {NAME}", addresses=(V4,), family="inet"),
    Call(f"gethostbyname2 {NAME} --family inet6", ONE_V6, (V6,), "inet6"),
    Call(f"gethostbyname_r {NAME} {TINY}", addresses=(V4,), family="inet"),
    Call(f"gethostbyname2_r {NAME} --family inet6 {TINY}", ONE_V6, (V6,), "inet6"),
    Call(f"gethostbyaddr {V4}", ((PTR_V4, "PTR"),), family="inet", name=V4),
    Call(f"gethostbyaddr {V6}", ((PTR_V6, "PTR"),), family="inet6", name=V6),
    Call(f"gethostbyaddr_r {V4} {TINY}", ((PTR_V4, "PTR"),), family="inet", name=V4),
    Call(f"getnameinfo {V4}", ((PTR_V4, "PTR"),), name=V4),
    Call(f"getnameinfo {V6}", ((PTR_V6, "PTR"),), name=V6),
    Call(f"res_query {NAME}"),
    Call(f"res_query {NAME} --type TXT", ((NAME + ".", "TXT"),)),
    Call(f"res_search {NAME}"),
    Call(f"res_send {NAME}", name=NAME + "."),  # all it is given is a packet
    Call(f"res_nquery {NAME}"),
    Call(f"res_nsearch {NAME}"),
]
CASES = [
    (libc, call)
    for libc in ("glibc", "musl")
    for call in CALLS
    if libc == "glibc" or call.words.split()[0] not in ONLY_GLIBC
]


@pytest.fixture(scope="module")
def told(programs: dict[str, Path]) -> Played:
    argvs = {}
    for libc, call in CASES:
        if f"lookup-{libc}" in programs:
            api, name, *options = call.words.split()
            words = [programs[f"lookup-{libc}"], "--api", api, "--name", name, *options]
            argvs[f"{libc} {call.words}"] = words
    return play(KNOWS_ALL, argvs, "--all")


@pytest.mark.parametrize(("libc", "call"), CASES, ids=lambda value: getattr(value, "words", value))
def test_a_call_is_one_lookup(told: Played, programs: dict[str, Path], libc: str, call: Call) -> None:
    """However often a function calls others, or is called again with more room, it is one lookup."""
    of_this_machine(programs, f"lookup-{libc}")
    case = f"{libc} {call.words}"
    lookup = told.only("lookup", case)["lookup"]
    api = call.api or call.words.split()[0]
    aliases = {"res_search": "res_query"} if libc == "musl" else {}  # there it is the same function
    assert lookup["api"] == aliases.get(api, api)
    assert (lookup["name"], lookup["service"]) == (call.name, call.service)
    assert lookup["family"] == call.family
    assert lookup["status"] == ("failed" if told.results[case]["failed"] else "ok")
    assert tuple(lookup.get("addresses", ())) == (call.addresses or ())
    asked = [(query["name"], query["type"]) for query in lookup["queries"]]
    assert set(asked) == set(call.asked)
    assert libc == "musl" or len(asked) == len(call.asked)  # musl asks again for each call it makes


def test_each_is_counted_once(told: Played) -> None:
    """The counters know as many lookups as there were calls, and as many questions as the server got."""
    assert told.stats["lookups"]["started"] == len(told.results)
    assert told.stats["lookups"]["ok"] == sum(result["ok"] for result in told.results.values())
    assert told.stats["queries"] == {"sent": len(told.asked), "answered": len(told.asked), "unanswered": 0}
    assert told.stats["lost"] == {}
