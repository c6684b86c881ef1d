"""Three builds of the Go program under each fault, and many lookups: a small part of `make go-matrix`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import go_cells
import pytest
from go_survival import Load, survive
from gotarget import Flavour
from gotool import NEWEST, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root"),
    pytest.mark.timeout(400),  # a toolchain builds its standard library first
]

#: Both versions, with and without cgo, stripped and not: each at least once.
PLAYED = (Flavour(OLDEST, cgo=True, stripped=True), Flavour(NEWEST, stripped=True), Flavour(NEWEST, cgo=True))
#: What `make go-matrix` does ten times as often.
LOAD = Load(1_009, 10_007)


@pytest.mark.parametrize("flavour", PLAYED, ids=lambda flavour: flavour.name)
def test_each_fault_is_explained(flavour: Flavour, go_program: Callable[..., Path]) -> None:
    """In every cell cause, name, api, goroutine, status and error are right, and the counters exact."""
    program = go_program(**vars(flavour))
    outcomes = go_cells.play(program, flavour)
    assert [(outcome.cell.name, outcome.problems) for outcome in outcomes if outcome.problems] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_many_goroutines_survive(version: str, go_program: Callable[..., Path]) -> None:
    """Lookups on stacks that grow, while the collector is busy, are counted exactly, without a crash."""
    flavour = Flavour(version)
    survived = survive(go_program(**vars(flavour)), flavour, LOAD)
    assert survived.problems == ()
