"""When what is open is looked at next."""

from __future__ import annotations

import pytest

from ebpfdns.observe.plan import IDLE_NS, MS, OPEN_NS, SOONEST_NS, Options, Plan

NOW_NS = 1_000_000 * MS


@pytest.mark.parametrize(
    ("is_open", "next_due_ns", "after_ns"),
    [
        (False, None, IDLE_NS),
        (True, None, OPEN_NS),
        (True, NOW_NS + 31 * MS, 31 * MS),
        (True, NOW_NS + 3 * MS, SOONEST_NS),
        (True, NOW_NS + 307 * MS, OPEN_NS),
    ],
)
def test_a_lookup_is_looked_at_when_it_becomes_stuck(
    *, is_open: bool, next_due_ns: int | None, after_ns: int
) -> None:
    """At that moment when it is near, but not without a pause; otherwise as often as ever."""
    plan = Plan.starting(NOW_NS, Options(1, 1), [])
    plan.looked(NOW_NS, next_due_ns, is_open=is_open)
    assert plan.scan_ns == NOW_NS + after_ns
