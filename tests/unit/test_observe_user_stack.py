"""Stacks of blocked threads: the frames that are proven, and none that is not."""

from __future__ import annotations

import itertools
import os
import select
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ebpfdns.observe import mapped_code, user_stack
from ebpfdns.observe.unwind_rules import UNDEFINED, UNKNOWN, Rules
from ebpfdns.observe.user_stack import MACHINES, Stack, stack_of, stacks_of, step

if TYPE_CHECKING:
    from collections.abc import Iterator

AMD64, ARM64 = MACHINES["x86_64"], MACHINES["aarch64"]
RBX, RBP, RSP, RIP = 3, 6, 7, 16
X19, X29, LR, SP = 19, 29, 30, 31
DEADLINE_S = 20.0
is_amd64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="names calls of amd64")


@pytest.fixture
def blocked() -> Iterator[int]:
    """A thread that sleeps in poll, called by Python."""
    near, far = socket.socketpair()
    started: list[int] = []
    both = threading.Event()

    def wait() -> None:
        poller = select.poll()
        poller.register(near, select.POLLIN)
        started.append(threading.get_native_id())
        both.set()
        poller.poll()

    with near, far:
        thread = threading.Thread(target=wait)
        thread.start()
        both.wait(DEADLINE_S)
        while not user_stack._call_text(os.getpid(), started[0]).startswith("7 "):
            pass
        yield started[0]
        far.send(b"x")
        thread.join()


@is_amd64
def test_a_blocked_thread_of_this_process_has_its_frames(blocked: int) -> None:
    """From the call it sleeps in, through the interpreter, to where the thread began."""
    found = stack_of(os.getpid(), blocked)
    assert found[0].symbol == "poll"
    assert Path(found[0].module or "").name.startswith(("libc", "ld-musl"))
    assert len(found) > 5
    assert all(inner.sp < outer.sp for inner, outer in itertools.pairwise(found))


@is_amd64
def test_what_is_known_of_a_file_is_not_searched_again(monkeypatch: pytest.MonkeyPatch, blocked: int) -> None:
    """A second look at a thread that has not moved opens no file, and leaves none open."""
    before = Counter(Path("/proc/self/fd").iterdir())
    first = stack_of(os.getpid(), blocked)
    assert Counter(Path("/proc/self/fd").iterdir()) == before
    monkeypatch.setattr(mapped_code, "_opened", lambda file: pytest.fail(f"opened {file.path} again"))
    assert stack_of(os.getpid(), blocked) == first


@is_amd64
def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, blocked: int) -> None:
    """With room for next to nothing every look finds the same, and does not keep more than one look needs."""
    monkeypatch.setattr(mapped_code, "_known", type(mapped_code._known)())  # not what other tests have left
    first = stack_of(os.getpid(), blocked)
    monkeypatch.setattr(mapped_code, "MAX_PLACES", 1)
    monkeypatch.setattr(mapped_code, "MAX_FILES", 1)
    for _ in range(3):
        assert stack_of(os.getpid(), blocked) == first
        assert len(mapped_code._known) <= 2
        assert all(len(known.functions) <= len(first) for known in mapped_code._known.values())


def test_a_thread_that_runs_or_is_gone_has_no_frames() -> None:
    """Neither has a stack that holds still."""
    tids = [threading.get_native_id(), 4194305]
    assert stacks_of(os.getpid(), tids) == dict.fromkeys(tids, user_stack.NOTHING)
    assert stack_of(4194305, 4194305) == []


def words(start: int, *values: int) -> Stack:
    return Stack(start, b"".join(value.to_bytes(8, "little") for value in values))


def test_a_saved_register_tells_the_callers_value() -> None:
    """What an inner frame saved is known in the outer one, and is what its rules may rest on."""
    stack = words(0x1000, 0xAB, 0x1030, 0x401000, 0, 0x99, 0x1050, 0x402000, 0)
    inner = Rules(RSP, 24, {RBX: -24, RBP: -16, RIP: -8}, RIP)
    first = step(AMD64, inner, {RSP: 0x1000}, stack)
    assert first == (0x401000, {RSP: 0x1018, RBX: 0xAB, RBP: 0x1030})
    by_frame_pointer = Rules(RBP, 8, {RIP: -8}, RIP)
    assert step(AMD64, by_frame_pointer, first[1], stack) == (0x402000, {RSP: 0x1038, RBX: 0xAB, RBP: 0x1030})


@pytest.mark.parametrize(
    "rules",
    [
        Rules(RBP, 16, {RIP: -8}, RIP),  # nobody has saved it
        Rules(None, 0, {RIP: -8}, RIP),  # an expression
        Rules(RSP, 8, {RIP: UNDEFINED}, RIP),  # where a thread begins
        Rules(RSP, 8, {RIP: UNKNOWN}, RIP),
        Rules(RSP, 8, {}, RIP),
        Rules(RSP, 4096, {RIP: -8}, RIP),  # beyond what was read
        Rules(RSP, 16, {RIP: -8}, RIP),  # a return address of 0
    ],
)
def test_what_cannot_be_told_ends_the_walk(rules: Rules) -> None:
    """Without a proven frame or return address there is no caller."""
    assert step(AMD64, rules, {RSP: 0x1000}, words(0x1000, 0x401000, 0)) is None


def test_a_register_kept_in_an_unknown_way_is_not_known() -> None:
    """A caller's value that cannot be had is missing, not the callee's."""
    rules = Rules(RSP, 8, {RIP: -8, RBX: UNKNOWN, RBP: UNDEFINED}, RIP)
    found = step(AMD64, rules, {RSP: 0x1000, RBX: 1, RBP: 2}, words(0x1000, 0x401000))
    assert found == (0x401000, {RSP: 0x1008})


def test_on_arm64_the_link_register_is_known_only_where_it_was_saved() -> None:
    """Where it was saved the caller is told, without the signature; where it was not, there is none."""
    signed = 0x00AB_0000_0040_1000
    stack = words(0x1000, 0x1020, signed, 7, 0)
    saved = Rules(SP, 32, {X29: -32, LR: -24, X19: -16}, LR)
    assert step(ARM64, saved, {SP: 0x1000}, stack) == (0x401000, {SP: 0x1020, X29: 0x1020, X19: 7})
    assert step(ARM64, Rules(SP, 32, {}, LR), {SP: 0x1000}, stack) is None
