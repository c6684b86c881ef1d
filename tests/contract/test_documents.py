"""Generated pages say what the code says."""

from __future__ import annotations

from pathlib import Path

import orjson
from click.testing import CliRunner

from ebpfdns.commands.schema import command
from ebpfdns.publish import reference
from ebpfdns.publish.schema import KINDS, schema

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


def test_the_page_is_the_generators() -> None:
    """docs/events.md is what `ebpfdns schema --markdown` prints; run that to mend it."""
    assert PAGE.read_text() == reference.markdown()


def test_the_page_has_every_kind() -> None:
    """There is a section for each kind, with an example of its own."""
    page = reference.markdown()
    assert [kind for kind in KINDS if f"\n## {kind}\n" not in page] == []
    assert [kind for kind in KINDS if f'"event": "{kind}"' not in page] == []


def test_the_command_prints_the_schema() -> None:
    """`ebpfdns schema` prints the schema, `--markdown` the page, and nothing else."""
    printed = CliRunner().invoke(command, [])
    assert orjson.loads(printed.stdout) == schema()
    assert CliRunner().invoke(command, ["--markdown"]).stdout == reference.markdown()
