"""What is said about a target: only what can be seen of it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.observe.sources import Variant
from ebpfdns.observe.target import UDP_SOCKETS_BEFORE, Target

OWN_NAMESPACE = Path("/proc/self/ns/pid").stat()


def kernel(**choices: Any) -> Any:
    """A kernel in which everything that is asked for works."""
    return SimpleNamespace(
        variant=Variant(**choices),
        losses=[],
        attach_library=lambda *_: [],
        attach_cgroup=lambda _: None,
        is_file_probed=lambda _: True,
    )


@pytest.fixture
def target() -> Any:
    """This very process."""
    found = Target(os.getpid())
    yield found
    found.close()


@pytest.mark.parametrize("own", [None, (OWN_NAMESPACE.st_dev, OWN_NAMESPACE.st_ino)])
def test_a_process_in_the_agents_own_pid_namespace_is_traced(
    target: Target, own: tuple[int, int] | None
) -> None:
    """On the host, or from a pod's own pid namespace, a process in the same one is attached to."""
    assert target.attach(kernel(pid_namespace=own))
    assert target.coverage(kernel())["libc"] is not None


def test_a_process_in_another_pid_namespace_is_refused(target: Target) -> None:
    """From a namespace of its own, the agent does not claim to trace a process that has no number there."""
    with pytest.raises(HostCannotTraceError, match="pid namespace") as refusal:
        target.attach(kernel(pid_namespace=(OWN_NAMESPACE.st_dev, OWN_NAMESPACE.st_ino + 1)))
    assert "host" in (refusal.value.remedy or "")


@pytest.mark.parametrize("current_in_packets", [True, False])
def test_sockets_of_before_are_missing_where_packets_do_not_tell_whose_they_are(
    target: Target, *, current_in_packets: bool
) -> None:
    """Before Linux 6.10 the coverage says that UDP sockets connected earlier are not seen, later not."""
    older = kernel(current_in_packets=current_in_packets)
    target.attach(older)
    coverage = target.coverage(older)
    if not coverage["wire"]:
        pytest.skip("no cgroup v2 here: packets are not seen at all")
    assert (UDP_SOCKETS_BEFORE in coverage["missing"]) is not current_in_packets


def test_refused_reading_is_said(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What /proc does not show for want of rights stands in the coverage; otherwise nothing is said."""
    target.attach(kernel())
    assert not [text for text in target.coverage(kernel())["missing"] if "refused" in text]
    monkeypatch.setattr("ebpfdns.observe.processes.refusal", lambda _: "its memory")
    target.attach(kernel())
    [text] = [text for text in target.coverage(kernel())["missing"] if "refused" in text]
    assert text.startswith("its memory")
    assert "CAP_SYS_PTRACE" in text
