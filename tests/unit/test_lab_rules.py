"""The script of the lab's DNS server: what may be written, and which rule applies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfdns.errors import UsageError
from ebpfdns.lab import faults, messages, rules
from ebpfdns.lab.faults import FAULTS, ServerPlan
from ebpfdns.lab.real_daemons import Resolved

QUESTION = messages.Question(name="a.b.test", type="A", end=0, has_opt=False)


def rule(**fields: Any) -> rules.Rule:
    return rules.parse(json.dumps([{"drop": True} | fields]))[0]


def holds(question: messages.Question = QUESTION, **fields: Any) -> bool:
    return rule(**fields).holds(question, "udp", "192.0.2.53", 2)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"type": "A"},
        {"suffix": "test"},
        {"suffix": "B.Test."},
        {"suffix": "a.b.test"},
        {"suffix": ""},
        {"transport": "udp"},
        {"server": "192.0.2.53"},
        {"nth": 2},
        {"edns": False},
    ],
)
def test_a_condition_that_is_met_holds(fields: dict[str, Any]) -> None:
    """A rule holds when each condition it states is met, and one without conditions always."""
    assert holds(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "AAAA"},
        {"suffix": "est"},
        {"suffix": "x.a.b.test"},
        {"transport": "tcp"},
        {"server": "192.0.2.54"},
        {"nth": 1},
        {"edns": True},
        {"type": "A", "nth": 3},
    ],
)
def test_a_condition_that_is_not_met_fails_the_rule(fields: dict[str, Any]) -> None:
    """One unmet condition is enough, and a suffix ends at a dot."""
    assert not holds(**fields)


def test_the_first_rule_that_holds_decides() -> None:
    """Order is priority: later rules are the rest."""
    script = rules.parse('[{"type":"AAAA","drop":true},{"answer":["192.0.2.1"]},{"rcode":2}]')
    assert rules.choose(script, QUESTION, "udp", "192.0.2.53", 1) is script[1]


def test_a_query_without_a_rule_is_refused() -> None:
    """A gap in a script shows as REFUSED and not as silence."""
    assert rules.choose((), QUESTION, "udp", "192.0.2.53", 1).rcode == rules.REFUSED


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "{}",
        "[1]",
        '[{"anser":[]}]',
        '[{"type":"A"}]',
        '[{"drop":true,"rcode":2}]',
        '[{"answer":[],"close":true}]',
    ],
)
def test_a_wrong_script_is_refused_with_a_message(text: str) -> None:
    """A typing error in a script is said at the start, not seen as odd behaviour later."""
    with pytest.raises(UsageError):
        rules.parse(text)


@given(st.dictionaries(st.sampled_from(sorted(rules.FIELDS)), st.none(), min_size=1))
def test_only_unconditional_immediate_replies_are_kept(fields: dict[str, None]) -> None:
    """A rule that counts, waits, or answers from elsewhere is never answered from the server's memory."""
    unusual: dict[str, Any] = {"nth": 1, "source": "192.0.2.54", "delay_ms": 1, "drop": True, "close": True}
    chosen = {name: unusual[name] for name in fields if name in unusual}
    assert rules.Rule(**chosen).is_plain is (not chosen)


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_a_sentence_and_valid_scripts(name: str) -> None:
    """Every fault can be shown to a person, and its servers will start."""
    fault = FAULTS[name]
    assert fault.sentence.endswith(".")
    assert "\n" not in fault.sentence
    for server in fault.servers:
        if isinstance(server, ServerPlan):
            assert rules.parse(json.dumps(server.script))
            # The program finds its servers in ways of its own, or another resolver finds them.
            others = fault.program != ("target",) or any(isinstance(one, Resolved) for one in fault.servers)
            assert others or set(server.listen) <= set(fault.nameservers)


def test_options_go_into_resolv_conf() -> None:
    """Time-outs of a fault are chosen by who sets it up, in resolv.conf's own words."""
    text = FAULTS["first_ns_dead"].resolv_conf("timeout:1 attempts:1")
    assert text == "nameserver 192.0.2.99\nnameserver 192.0.2.54\noptions timeout:1 attempts:1\n"
    assert "options" not in FAULTS["healthy"].resolv_conf()


def test_a_late_reply_is_as_late_as_asked() -> None:
    """The delay of late_reply is its parameter, 6 s by default."""
    assert faults.late_reply(250).servers[0].script[0]["delay_ms"] == 250
    assert FAULTS["late_reply"].servers[0].script[0]["delay_ms"] == 6000
