"""What people read: blocks from events, as plain text or folded to a width; nothing in them is harmful."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ebpfdns.publish import figures, phrases, plain, styled
from ebpfdns.publish.examples import examples
from ebpfdns.publish.rendering import renderer
from ebpfdns.publish.styled import Style
from ebpfdns.publish.ways_out import wants_colours

PAPER = Style(columns=100, coloured=False)
SCREEN = Style(columns=100, coloured=True)
KINDS = sorted(examples())


def test_a_stuck_lookup_on_paper():
    """On paper a stuck lookup is its sentence, its cause, the evidence, what to try, and then the details."""
    assert plain.text(examples()["lookup_stuck"]).splitlines() == [
        f"09:14:07.512 {examples()['lookup_stuck']['message']}",
        "             cause:    resolved_dot_blocked (confirmed)",
        "             because:  · 127.0.0.53 has not answered for 4.0 s",
        "                       · systemd-resolved (pid 412) has sent 3 SYNs to 9.9.9.9:853, none answered",
        "                       · DNSOverTLS=yes: it will not fall back to plain DNS",
        "             try:      Open TCP 853 to 9.9.9.9, or: resolvectl dnsovertls eth0 opportunistic",
        "             queries:  A  proxy.golang.org.  127.0.0.53:53  udp  at 0.4 ms  waiting",
        "             waits:    in epoll_wait for 4.0 s on descriptor 7 to 127.0.0.53:53 with 0 bytes unread",
        "             behind:   systemd-resolved 412 (stub): waiting",
        "                       └─ connect to 9.9.9.9:853, in flight, 4.0 s, SYN_SENT, 2 retransmits",
        "             who:      api.test 4242, thread 4250 api.test, goroutine 38, go of go, id 4242-17",
    ]


def test_a_stuck_lookup_on_a_screen():
    """On a screen the headline is short, the verdict stands below it, and long lines are folded in place."""
    narrow = Style(columns=60, coloured=False)
    assert styled.appended(examples()["lookup_stuck"], narrow) == [
        "● 09:14:07.512 lookup of proxy.golang.org, 4.0 s",
        "  systemd-resolved must use DNS over TLS, and 9.9.9.9:853",
        "  does not answer its connection attempts.",
        "  cause   resolved_dot_blocked (confirmed)",
        "  because • 127.0.0.53 has not answered for 4.0 s",
        "          • systemd-resolved (pid 412) has sent 3 SYNs to",
        "            9.9.9.9:853, none answered",
        "          • DNSOverTLS=yes: it will not fall back to plain",
        "            DNS",
        "  try     Open TCP 853 to 9.9.9.9, or: resolvectl",
        "          dnsovertls eth0 opportunistic",
        "  queries A  proxy.golang.org.  127.0.0.53:53  udp  at",
        "            0.4 ms  waiting",
        "  waits   in epoll_wait for 4.0 s on descriptor 7 to",
        "          127.0.0.53:53 with 0 bytes unread",
        "  behind  systemd-resolved 412 (stub): waiting",
        "          └─ connect to 9.9.9.9:853, in flight, 4.0 s,",
        "                SYN_SENT, 2 retransmits",
        "  who     api.test 4242, thread 4250 api.test, goroutine",
        "          38, go of go, id 4242-17",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_no_colour_no_control(kind):
    """Plain text, of whatever kind of line, has no control character but the ends of its lines."""
    text = plain.text(examples()[kind])
    assert all(line.isprintable() for line in text.splitlines())
    assert all(line.isprintable() for line in styled.appended(examples()[kind], PAPER))


@pytest.mark.parametrize("kind", KINDS)
def test_colours_are_all_that_differs(kind):
    """Colours add nothing and hide nothing."""
    coloured = "\n".join(styled.appended(examples()[kind], SCREEN))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == "\n".join(styled.appended(examples()[kind], PAPER))


HOSTILE = st.text(min_size=1) | st.sampled_from(
    [
        "[red]x[/red]",
        "[/]",
        "[link=http://x]",
        "\x1b[31m",
        "\x1b]0;t\x07",
        "\u202e",
        "\udcff",
        "日本" * 40,
        "\n",
    ]
)


def poisoned(value, text):
    """Every text in an event replaced, as in a recording that somebody made."""
    if isinstance(value, dict):
        return {key: item if key in ("event", "ts") else poisoned(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, text) for item in value]
    return text if isinstance(value, str) else value


@settings(max_examples=60, deadline=None)
@given(text=HOSTILE, kind=st.sampled_from(KINDS), columns=st.integers(1, 200))
def test_text_from_outside_is_only_text(text, kind, columns):
    """No text in an event becomes a control sequence, a colour, or a line wider than the window."""
    event = poisoned(examples()[kind], text)
    style = Style(columns=columns, coloured=False)
    assert all(line.isprintable() for line in plain.text(event).splitlines())
    for line in styled.appended(event, style):
        assert line.isprintable()
        assert cell_len(line) <= style.usable
    renderer("coloured")([event])


def test_markup_is_shown_as_it_is():
    """A program called `[red]x` is called just that on the screen."""
    event = examples()["lookup_stuck"]
    event["process"]["executable"]["name"] = "[red]x[/red]"
    assert "[red]x[/red] 4242" in "\n".join(styled.appended(event, PAPER))


def test_what_is_missing_is_not_said():
    """A line with everything that may be null set to null still makes a block, without the word None."""
    event = examples()["lookup_stuck"]
    event["lookup"] |= {"name": None, "elapsed_ms": None, "queries": [], "waiting_on": None, "api": None}
    event |= {
        "cause": None,
        "chain": [{"role": "stub", "process": None, "queries": [], "connects": [], "state": "?"}],
    }
    for text in (plain.text(event), "\n".join(styled.appended(event, PAPER))):
        assert "None" not in text
        assert "lookup of a name" in text or "proxy.golang.org" in text


def test_ages_as_people_say_them():
    """Ages have the unit that a person would choose."""
    ages = [phrases.age(ms) for ms in (0.31, 42, 1500, 125_000)]
    assert ages == ["0.3 ms", "42 ms", "1.5 s", "2 min 5 s"]


def test_an_address_of_ipv6_has_brackets():
    """An IPv6 address is told from its port."""
    assert phrases.address({"address": "2001:db8::1", "port": 53}) == "[2001:db8::1]:53"


def test_figures_of_an_agent_that_saw_nothing():
    """A summary without a single lookup has its counters, and no latencies."""
    labels = [row[0] for row in figures.rows({"stats": {"connects": {"started": 0}, "latency_ms": {}}})]
    assert labels == ["connects", "lost"]


@pytest.mark.parametrize(
    ("environment", "is_terminal", "wanted"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_when_there_are_colours(environment, is_terminal, wanted):
    """Colours are for terminals that can, unless NO_COLOR or FORCE_COLOR say otherwise."""
    assert wants_colours(environment, is_terminal=is_terminal) is wanted
