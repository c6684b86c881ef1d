"""The command line is a promise: names, exit codes, and a help that shows how."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ebpfdns import errors
from ebpfdns.cli import COMMANDS, cli

#: Section 1 of the contract; more may be added, none renamed.
PROMISED = {"attach", "run", "inspect", "agent", "replay", "demo", "doctor", "schema"}
AGENT = Path(__file__).parents[2] / "agent"


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def ebpfdns(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ebpfdns", *arguments],
        env={**os.environ, "PYTHONPATH": str(AGENT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def options(of: click.Command) -> dict[str, click.Option]:
    """`--name` → option."""
    return {
        long: option
        for option in of.params
        if isinstance(option, click.Option)
        for long in option.opts
        if long.startswith("--")
    }


def test_no_command_has_another_name() -> None:
    """Whatever is offered is named as the contract names it, and is there."""
    assert set(COMMANDS) <= PROMISED
    absent = [name for name in COMMANDS.values() if not importlib.util.find_spec(f"ebpfdns.commands.{name}")]
    assert absent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_reads_the_environment(name: str) -> None:
    """--an-option of a command is EBPFDNS_COMMAND_AN_OPTION too, whatever the code calls it."""
    context = click.Context(command(name), info_name=name)
    for long, option in options(command(name)).items():
        variable = f"EBPFDNS_{name.upper()}_{long.removeprefix('--').upper().replace('-', '_')}"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(variable, "1")
            assert option.resolve_envvar_value(context) == "1", variable


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples(name: str) -> None:
    """The help of each command ends with commands to copy, its own among them."""
    shown = CliRunner().invoke(cli, [name, "--help"])
    assert shown.exit_code == 0
    *_, last = shown.output.strip().split("\n\n")
    assert f"ebpfdns {name}" in " ".join(last.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_a_terminal(name: str) -> None:
    """The help is readable on 80 columns."""
    shown = CliRunner().invoke(cli, [name, "--help"], terminal_width=80)
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []


def test_attach_has_its_options() -> None:
    """Each option that the contract gives `attach` is there under its name."""
    promised = """--pid --stuck-after --slow-after --all --children --output --format --duration --record
        --redact-names --stats-every --ready-file --log-level"""
    assert set(promised.split()) - options(command("attach")).keys() == set()


def test_exit_codes_are_the_contracts() -> None:
    """1 failed, 2 usage, 3 host or rights, 4 no such target: each has one class of error."""
    codes = {
        errors.EbpfdnsError: 1,
        errors.UsageError: 2,
        errors.HostCannotTraceError: 3,
        errors.NoSuchTargetError: 4,
    }
    assert {kind: kind.exit_code for kind in codes} == codes
    assert set(errors.EbpfdnsError.__subclasses__()) == codes.keys() - {errors.EbpfdnsError}


def test_usage_errors_end_with_2_and_say_nothing_on_stdout() -> None:
    """An unknown command or option is a usage error; stdout, which is the product, stays empty."""
    for arguments in (["nonsense"], ["schema", "--nonsense"]):
        done = ebpfdns(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "nonsense" in done.stderr


def test_the_schema_is_printed_with_0() -> None:
    """`ebpfdns schema` ends with 0, has nothing to say on stderr, and needs no bcc and no root."""
    done = ebpfdns("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("{")
