"""A target that only waits for its child: what may be said of a process that is not traced."""

from __future__ import annotations

from dataclasses import replace

from situations import rows, situation, thread, udp, verdict

from ebpfdns.model.facts import Parent, Situation

SHELL = Parent(7, "sh", "wait4")


def in_child(parent: Parent = SHELL, **more: object) -> Situation:
    seen = situation([], age=2.0, thread=thread(udp()), **more)
    assert seen.lookup is not None
    return replace(seen, parent=parent, lookup=replace(seen.lookup, before_attach=True))


@rows(
    ("the target waits for it", in_child(), "child_process", "confirmed"),
    ("the target reads a pipe", in_child(replace(SHELL, syscall="read")), "child_process", "confirmed"),
    (
        "the target does something else",
        in_child(replace(SHELL, syscall="running")),
        "child_process",
        "likely",
    ),
    ("what the target does was not seen", in_child(replace(SHELL, syscall=None)), "child_process", "likely"),
    ("events were lost", in_child(lost={"kernel_ring": 1}), "child_process", "likely"),
)
def test_child_process(seen: Situation, expected: tuple[str | None, str | None]) -> None:
    """The cause is that nobody traces the child, whatever the child waits for."""
    assert verdict(seen) == expected


def test_of_the_targets_own_lookup_it_is_never_said() -> None:
    """Without a parent that is traced it is a lookup like any other."""
    seen = replace(in_child(), parent=None)
    assert verdict(seen)[0] != "child_process"
