"""Fixtures that the kernel tests share: the compiled workloads, and a sandbox for each file of tests.

Owns: these fixtures. Must not know: what a test does with them.
`agent.Agent` runs the agent, `program.Program` a workload, `promises` is what each stream of lines must keep.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gotarget import Flavour, GoMissingError, gotarget

from ebpfdns.lab.namespace import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKLOADS = Path(__file__).parents[1] / "workloads" / "build.py"


@pytest.fixture(scope="session")
def programs() -> dict[str, Path]:
    """Name ("lookup-glibc", "wire-musl-stripped" …) → path of each workload that can be built here."""
    built: dict[str, Path] = runpy.run_path(str(WORKLOADS))["build"]()
    return built


@pytest.fixture(scope="session")
def go_program() -> Callable[..., Path]:
    """The Go workload of a flavour (fields of `gotarget.Flavour`), or a skip with what to install."""

    def built(**fields: object) -> Path:
        try:
            return gotarget(Flavour(**fields))  # type: ignore[arg-type]
        except GoMissingError as error:
            pytest.skip(str(error))

    return built


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """A network to get DNS wrong in, for all tests of a file."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def nobody_can_run_us() -> None:
    """Skip where this tree lies below a folder that only root may enter, such as /root."""
    places = {Path(sys.executable), Path(__file__).resolve()}
    closed = [folder for place in places for folder in place.parents if not folder.stat().st_mode & 0o001]
    if closed:
        pytest.skip(f"an ordinary user cannot run what lies in {closed[0]}")
