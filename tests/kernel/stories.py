"""The stories of test_causes: what is wrong, and what can be known of it, when.

Owns: the table. Must not know: how a story is played or checked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from play import SHORT

from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, Fault, ServerPlan, late_reply

ONE, TWO, NO_ROUTE = topology.SERVER_1, topology.SERVER_2, topology.NO_ROUTE
DEAD = topology.BLACK_HOLE_SERVER
TWO_ROUNDS = "timeout:1 attempts:2"
SILENCE = {"drop": True}
#: Not connected, a socket hears of no closed port: whether anybody listens is not known.
UNSURE = "probe_missing"

Verdict = tuple[str, str]
LIKELY_SILENT: Verdict = ("ns_silent", "likely")


def serving(nameservers: tuple[str, ...], **scripts: tuple[dict[str, Any], ...]) -> Fault:
    """Servers with these scripts; who has none does not exist."""
    plans = tuple(ServerPlan(({"one": ONE, "two": TWO}[name],), script) for name, script in scripts.items())
    return Fault(name="own", sentence="The test's own.", nameservers=nameservers, servers=plans)


class Story(NamedTuple):
    """What is wrong; what is said while it lasts, at the end, and with which evidence at the end."""

    libc: str
    fault: Fault
    stuck: tuple[Verdict, ...]  # its first words are those at 0.3 s, 0.6 s, 1.2 s …
    end: Verdict | None
    facts: tuple[str, ...] = ()
    options: str = SHORT
    api: str = "getaddrinfo"


SERVFAIL, REFUSED_CODE = {"rcode": 2}, {"rcode": 5}
NO_V6 = {"type": "AAAA", "drop": True}
STORIES = {
    "silent, once": Story(
        "glibc", FAULTS["silent"], (LIKELY_SILENT,) * 2, ("ns_silent", "confirmed"), ("no_reply",)
    ),
    "silent, asked again": Story(
        "glibc",
        FAULTS["silent"],
        (*(LIKELY_SILENT,) * 2, ("ns_silent", "confirmed")),
        ("ns_silent", "confirmed"),
        ("no_reply",),
        TWO_ROUNDS,
    ),
    "silent, to musl": Story(
        "musl", FAULTS["silent"], (LIKELY_SILENT,) * 2, LIKELY_SILENT, ("no_reply", UNSURE), TWO_ROUNDS
    ),
    "silent over IPv6": Story(
        "glibc",
        Fault(
            "own",
            "An IPv6 server.",
            (topology.SERVER_1_V6,),
            (ServerPlan((topology.SERVER_1_V6,), (SILENCE,)),),
        ),
        (LIKELY_SILENT,) * 2,
        ("ns_silent", "confirmed"),
        ("no_reply",),
    ),
    "both of two silent": Story(
        "glibc",
        serving((ONE, TWO), one=(SILENCE,), two=(SILENCE,)),
        (*(LIKELY_SILENT,) * 2, ("first_ns_dead", "likely")),  # the second was just asked
        ("ns_silent", "confirmed"),
        ("no_reply", "no_reply"),
    ),
    "the first dead": Story(
        "glibc",
        FAULTS["first_ns_dead"],
        (LIKELY_SILENT,) * 2,  # the second has not been asked yet
        ("first_ns_dead", "confirmed"),
        ("no_reply", "reply_seen"),
    ),
    "the first dead, the second slow": Story(
        "glibc",
        serving((DEAD, TWO), two=({**GOOD_ANSWER, "delay_ms": 600},)),
        (*(LIKELY_SILENT,) * 2, ("first_ns_dead", "likely")),
        ("first_ns_dead", "confirmed"),
        ("no_reply", "reply_seen"),
    ),
    "the first dead, to musl": Story("musl", FAULTS["first_ns_dead"], (), None),  # it asks both at once
    "refused": Story("glibc", FAULTS["refused"], (), ("ns_refused", "confirmed"), ("socket_error",)),
    "refused, to musl": Story(
        "musl", FAULTS["refused"], (LIKELY_SILENT,) * 2, LIKELY_SILENT, ("no_reply", UNSURE)
    ),
    "the first refused, the second well": Story(
        "glibc", serving((ONE, TWO), two=(GOOD_ANSWER,)), (), ("ns_refused", "likely"), ("socket_error",)
    ),
    "the first refused, the second silent": Story(
        "glibc",
        serving((ONE, TWO), two=(SILENCE,)),
        (LIKELY_SILENT,) * 2,
        LIKELY_SILENT,
        ("no_reply", "socket_error"),
    ),
    "no route": Story(
        "glibc", FAULTS["unreachable"], (), ("ns_unreachable", "confirmed"), ("connect_no_route",)
    ),
    "no route, to musl": Story(
        "musl",
        FAULTS["unreachable"],
        (("ns_unreachable", "possible"),) * 2,  # which error the kernel gave was not seen
        ("ns_unreachable", "possible"),
        ("connect_no_route",),
    ),
    "no route to the first": Story(
        "glibc",
        serving((NO_ROUTE, TWO), two=(GOOD_ANSWER,)),
        (),
        ("ns_unreachable", "likely"),
        ("connect_no_route",),
    ),
    "SERVFAIL, once": Story("glibc", FAULTS["servfail"], (), ("rcode_retry", "likely"), ("rcode_error",) * 2),
    "SERVFAIL, asked again": Story(
        "glibc", FAULTS["servfail"], (), ("rcode_retry", "confirmed"), ("rcode_error",) * 2, TWO_ROUNDS
    ),
    "SERVFAIL, to musl": Story(
        "musl",
        FAULTS["servfail"],
        (("rcode_retry", "confirmed"),) * 2,
        ("rcode_retry", "confirmed"),
        ("rcode_error",) * 2,
    ),
    "SERVFAIL after a while": Story(
        "glibc",
        serving((ONE,), one=({**SERVFAIL, "delay_ms": 400},)),
        (LIKELY_SILENT, ("rcode_retry", "confirmed")),
        ("rcode_retry", "confirmed"),
        ("rcode_error",) * 2,
        TWO_ROUNDS,
    ),
    "REFUSED": Story(
        "glibc", serving((ONE,), one=(REFUSED_CODE,)), (), ("rcode_retry", "likely"), ("rcode_error",) * 2
    ),
    "REFUSED, which musl ignores": Story(
        "musl",
        serving((ONE,), one=(REFUSED_CODE,)),
        (("rcode_retry", "likely"),) * 2,
        ("rcode_retry", "confirmed"),
        ("rcode_error",) * 2,
    ),
    "one SERVFAIL, one silence": Story(
        "glibc",
        serving((ONE,), one=(NO_V6, SERVFAIL)),
        (("rcode_retry", "likely"),) * 2,
        ("rcode_retry", "likely"),  # and not one_reply_lost
        ("rcode_error",),
    ),
    "its own firewall": Story(
        "glibc", FAULTS["local_firewall"], (), ("local_firewall", "confirmed"), ("send_refused_eperm",)
    ),
    "no server in the file": Story(
        "glibc",
        FAULTS["no_nameserver"],
        (),
        ("no_nameserver", "confirmed"),
        ("resolv_conf_empty", "socket_error"),
    ),
    "no server in the file, to musl": Story(
        "musl",
        FAULTS["no_nameserver"],
        (("no_nameserver", "confirmed"),) * 2,
        ("no_nameserver", "confirmed"),
        ("resolv_conf_empty", "no_reply", UNSURE, UNSURE),
    ),
    "a long search": Story(
        "glibc",
        FAULTS["search_amplification"],
        (LIKELY_SILENT, ("unknown", "possible"), ("search_amplification", "confirmed")),
        ("search_amplification", "confirmed"),
        (*("search_step",) * 4, "ndots_search"),
    ),
    "a long search, to musl": Story(
        "musl",
        FAULTS["search_amplification"],
        (LIKELY_SILENT, ("unknown", "possible"), ("search_amplification", "confirmed")),
        ("search_amplification", "confirmed"),
        (*("search_step",) * 4, "ndots_search"),
        "timeout:5",
    ),
    "a search whose last step hangs": Story(
        "glibc",
        replace(
            FAULTS["search_amplification"],
            name="own",
            servers=(ServerPlan((ONE,), ({"suffix": "c.lab.test", "drop": True}, {"rcode": 3})),),
        ),
        (("unknown", "possible"),) * 2,
        LIKELY_SILENT,
        ("no_reply", "search_step"),
    ),
    "no such name": Story("glibc", FAULTS["nxdomain"], (), None),
    "one reply lost": Story(
        "glibc",
        FAULTS["one_reply_lost"],
        (*(("unknown", "possible"),) * 2, *(("one_reply_lost", "confirmed"),) * 2),  # a second tells
        ("one_reply_lost", "confirmed"),
        ("reply_seen", "one_type_unanswered", "retried_serially"),
    ),
    "one reply lost, to musl": Story(
        "musl",
        FAULTS["one_reply_lost"],
        (("unknown", "possible"),) * 2,
        ("one_reply_lost", "confirmed"),
        ("reply_seen", "one_type_unanswered"),
    ),
    "one reply lost, once": Story(
        "glibc",
        serving((ONE,), one=({**NO_V6, "nth": 1}, GOOD_ANSWER)),
        (("unknown", "possible"),) * 2,
        ("one_reply_lost", "confirmed"),
        ("reply_seen", "one_type_unanswered", "retried_serially"),
    ),
    "only the other type lost": Story("glibc", FAULTS["one_reply_lost"], (), None, api="gethostbyname"),
    "late": Story(
        "glibc",
        late_reply(1700),
        (*(LIKELY_SILENT,) * 2, ("ns_silent", "confirmed")),
        ("late_reply", "confirmed"),
        ("reply_late",) * 2,
        TWO_ROUNDS,
    ),
    "late, one question": Story(
        "glibc",
        late_reply(1700),
        (*(LIKELY_SILENT,) * 2, ("ns_silent", "confirmed")),
        ("late_reply", "likely"),  # it may be the repetition that was answered
        ("reply_late",),
        TWO_ROUNDS,
        "gethostbyname",
    ),
    "the first of two late": Story(
        "glibc",
        serving((ONE, TWO), one=({**GOOD_ANSWER, "delay_ms": 1400},), two=(SILENCE,)),
        (*(LIKELY_SILENT,) * 2, ("first_ns_dead", "likely")),
        ("late_reply", "confirmed"),
        ("reply_late",) * 2,
        TWO_ROUNDS,
    ),
    "slow, but in time": Story(
        "glibc",
        serving((ONE,), one=({**GOOD_ANSWER, "delay_ms": 700},)),
        (LIKELY_SILENT,) * 2,
        None,
        (),
        "timeout:5",
    ),
    "another id": Story(
        "glibc",
        serving((ONE,), one=({**GOOD_ANSWER, "flip_id": True},)),
        (("reply_ignored", "likely"),) * 2,
        ("reply_ignored", "confirmed"),
        ("reply_mismatch", "no_reply"),
    ),
    "another question": Story(
        "glibc",
        serving((ONE,), one=({**GOOD_ANSWER, "wrong_question": True},)),
        (("reply_ignored", "likely"),) * 2,
        ("reply_ignored", "confirmed"),
        ("reply_mismatch", "no_reply"),
    ),
    "another sender, which the kernel drops": Story(
        "glibc",
        FAULTS["reply_ignored"],
        (("reply_ignored", "likely"),) * 2,
        ("reply_ignored", "confirmed"),
        ("reply_mismatch", "no_reply"),
    ),
    "another sender": Story(
        "musl",
        serving((ONE,), one=({**GOOD_ANSWER, "source": TWO},)),
        (("reply_ignored", "likely"),) * 2,
        ("reply_ignored", "confirmed"),
        ("reply_mismatch", "no_reply"),
    ),
    "over TCP, and well": Story("glibc", FAULTS["tcp"], (), None),
    "well": Story("glibc", FAULTS["healthy"], (), None),
}
