"""What holds for every test.

Owns: how the workers of one run keep out of each other's way.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long one example takes depends on what else the machine does, and is no property of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

LOCK = Path("/var/lock/ebpfdns-tests")
#: folders whose tests load the machine, and probe libraries that all programs share
LOADING = {"kernel", "deploy"}
_held: list[IO[str]] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """A file marked `alone` has the machine for itself; others of its kind run beside each other.

    Here and not in a fixture: no test's time-out runs while it waits for its turn.
    """
    if item.path.parent.name in LOADING and not _held:
        file = LOCK.open("w")
        is_alone = item.get_closest_marker("alone") is not None
        fcntl.flock(file, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        _held.append(file)
    try:
        return (yield)
    finally:
        if _held and (nextitem is None or nextitem.path != item.path):
            _held.pop().close()
