"""The catalogue, the rules, the pages about them and the demo's faults say the same."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ebpfdns import cli
from ebpfdns.diagnose import rules
from ebpfdns.diagnose.catalogue import CATALOGUE, IDS
from ebpfdns.lab.faults import FAULTS

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "causes"
RULES = {module.name for module in pkgutil.iter_modules(rules.__path__)}
IMPLEMENTED = [entry.id for entry in CATALOGUE if entry.is_implemented]
#: What every page tells, in this order.
PARTS = ("| confidence | what was seen |", "**What it is not.**", "**What to do.**", "**See it happen.**")


def test_every_id_is_there_once() -> None:
    """No cause is listed twice, and `unknown` is what is left at the end."""
    assert len(set(IDS)) == len(IDS)
    assert IDS[-2:] == ("agent_blind", "unknown")


def test_every_rule_is_in_the_catalogue() -> None:
    """Each file with a rule has its entry of the same name, and each entry with a rule its file."""
    assert set(IMPLEMENTED) == RULES


def test_specific_causes_come_before_general_ones() -> None:
    """Rules are tried in this order: the program itself, send, protocol, silence."""
    order = [
        "target_stopped",
        "local_firewall",
        "ns_unreachable",
        "ns_refused",
        "tcp53_blocked",
        "tcp53_silent",
    ]
    order += ["rcode_retry", "reply_ignored", "late_reply", "first_ns_dead", "one_reply_lost", "ns_silent"]
    assert [name for name in IDS if name in order] == order


def test_every_rule_has_a_page() -> None:
    """There is a page for each cause that can be said, and none for one that cannot."""
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == set(IMPLEMENTED)


@pytest.mark.parametrize("name", IMPLEMENTED)
def test_a_page_tells_everything(name: str) -> None:
    """Each page says when its cause is said, what it is not, what to do, and how to see it happen."""
    text = (PAGES / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    places = [text.find(part) for part in PARTS]
    assert -1 not in places
    assert places == sorted(places)


def test_the_index_has_every_cause() -> None:
    """The index lists the whole catalogue in its order, with meaning, and whether it can be said today."""
    found = re.findall(r"^\| \[?`(\w+)`(?:\]\(\1\.md\))? \| (.+) \| (yes|no) \|$", _index(), re.MULTILINE)
    assert found == [(e.id, e.meaning, "yes" if e.is_implemented else "no") for e in CATALOGUE]


def test_the_pages_refer_to_what_exists() -> None:
    """Links lead to pages, and the commands of ebpfdns that pages and remedies name can be typed."""
    pages = {path: path.read_text() for path in PAGES.glob("*.md")}
    for path, text in pages.items():
        assert [link for link in re.findall(r"\]\((\S+)\)", text) if not (path.parent / link).exists()] == []
    texts = [*pages.values()]
    texts += [Path(str(_rule(name).__file__)).read_text() for name in RULES]
    for text in texts:
        assert set(re.findall(r"\bebpfdns ([a-z]+)\b", text)) <= {*cli.COMMANDS, "sees"}
        assert set(re.findall(r"\bebpfdns demo ([a-z0-9_]+)", text)) <= set(FAULTS)


def test_the_demo_shows_causes_that_can_be_said() -> None:
    """Every fault of the demo expects a cause with a rule, and that cause's page shows the fault."""
    for fault in FAULTS.values():
        if fault.expected_cause is not None:
            assert fault.expected_cause in IMPLEMENTED
            assert f"ebpfdns demo {fault.name}" in (PAGES / f"{fault.expected_cause}.md").read_text()


def _index() -> str:
    return (PAGES / "README.md").read_text()


def _rule(name: str) -> ModuleType:
    return importlib.import_module(f"{rules.__name__}.{name}")
