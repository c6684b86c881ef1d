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


@pytest.mark.parametrize(("stdout", "code", "told"), [("&-", 0, ""), ("/dev/full", 1, "no space left")])
def test_standard_output_that_takes_nothing(stdout: str, code: int, told: str) -> None:
    """Closed, it is nobody's wish to read; full, it is an error with a remedy, not one of ours."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" >{stdout}', "sh", sys.executable, "-m", "ebpfdns", "schema"],
        env={**os.environ, "PYTHONPATH": str(AGENT)},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert told in done.stderr
    assert "ebpfdns itself" not in done.stderr


def options(of: click.Command) -> dict[str, click.Option]:
    """`--name` → option."""
    return {
        long: option
        for option in of.params
        if isinstance(option, click.Option)
        for long in option.opts
        if long.startswith("--")
    }


def all_names(of: click.Command) -> set[str]:
    """Every `--name`, also those that say no."""
    found = [option for option in of.params if isinstance(option, click.Option)]
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


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


def test_run_has_the_options_of_attach_and_its_own() -> None:
    """Whatever `attach` can be told about lines, `run` can be told too, by the same names."""
    own = {"--user", "--fail-on-stuck", "--junit", "--no-summary", "--no-children", "--no-hold"}
    not_for_commands = {"--pid", "--dry-run"}
    shared = options(command("attach")).keys() - not_for_commands
    assert (shared | own) - all_names(command("run")) == set()


@pytest.mark.parametrize("words", [[], ["--"], ["--all"]])
def test_run_wants_a_command(words: list[str]) -> None:
    """`run` without a command is a usage error."""
    done = ebpfdns("run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "CMD" in done.stderr


def test_a_commands_own_options_are_its_own() -> None:
    """Behind the command's name nothing is read as an option of `run`, with or without `--`."""
    for words in (["no-such-command", "--help"], ["--", "no-such-command", "--all"]):
        done = ebpfdns("run", *words)
        assert (done.returncode, done.stdout) == (127, "")
        assert "no-such-command" in done.stderr


def test_run_says_as_a_shell_what_it_cannot_run(tmp_path: Path) -> None:
    """A command that is not there is 127, one that cannot be run 126, a user that is not there 2."""
    plain = tmp_path / "plain"
    plain.touch()
    cases = {(str(tmp_path / "none"),): 127, (str(plain),): 126, (str(tmp_path),): 126}
    cases |= {("--user", "no-such-user", "--", "true"): 2}
    for words, code in cases.items():
        done = ebpfdns("run", *words)
        assert (done.returncode, done.stdout) == (code, ""), words
        assert "try:" in done.stderr


def test_exit_codes_are_the_contracts() -> None:
    """1 failed, 2 usage, 3 host or rights, 4 no such target; 126, 127 as shells: each has one class."""
    codes = {
        errors.EbpfdnsError: 1,
        errors.UsageError: 2,
        errors.HostCannotTraceError: 3,
        errors.NoSuchTargetError: 4,
        errors.CommandRefusedError: 126,
        errors.CommandNotFoundError: 127,
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
