"""The lab itself, on the real kernel with the real libcs: what it promises to other tests must be true."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab_runs import (
    DEADLINE_S,
    IMPATIENT,
    PATIENT,
    QUICK_MS,
    SLOW_MS,
    run,
    start,
)

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab import topology
from ebpfdns.lab.behind_faults import BEHIND_FAULTS
from ebpfdns.lab.faults import FAULTS, late_reply
from ebpfdns.lab.local_faults import LOCAL_FAULTS
from ebpfdns.lab.namespace import Sandbox, bare_python, end

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.alone,
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]


@contextlib.contextmanager
def told_when_gone(pids: list[int]) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        poller = select.poll()
        descriptors = [os.pidfd_open(pid) for pid in pids]
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
            poller.register(descriptor, select.POLLIN)

        left = set(descriptors)

        def all_gone(deadline_s: float = DEADLINE_S) -> bool:
            give_up_at = time.monotonic() + deadline_s
            while left and (left_s := give_up_at - time.monotonic()) > 0:
                for descriptor, _ in poller.poll(left_s * 1000):
                    poller.unregister(descriptor)
                    left.discard(descriptor)
            return not left

        yield all_gone


# The faults. A row: fault, libc, code of getaddrinfo (None: it works), and whether it takes a time-out.
BEHAVIOUR = [
    ("healthy", "glibc", None, "quick"),
    ("healthy", "musl", None, "quick"),
    ("silent", "glibc", "EAI_AGAIN", "slow"),
    ("silent", "musl", "EAI_AGAIN", "slow"),
    ("refused", "glibc", "EAI_AGAIN", "quick"),
    ("refused", "musl", "EAI_AGAIN", "slow"),  # its unconnected socket is never told
    ("unreachable", "glibc", "EAI_AGAIN", "quick"),
    ("unreachable", "musl", "EAI_AGAIN", "slow"),
    ("servfail", "glibc", "EAI_AGAIN", "quick"),
    ("servfail", "musl", "EAI_AGAIN", "slow"),
    ("nxdomain", "glibc", "EAI_NONAME", "quick"),
    ("nxdomain", "musl", "EAI_NONAME", "quick"),
    ("one_reply_lost", "glibc", None, "slow"),
    ("one_reply_lost", "musl", "EAI_AGAIN", "slow"),
    ("tcp", "glibc", None, "quick"),  # musl: by version, below
    ("first_ns_dead", "glibc", None, "slow"),
    ("first_ns_dead", "musl", None, "quick"),  # it asks all servers at once
    ("connect_after_dns", "glibc", None, "quick"),
    ("connect_after_dns", "musl", None, "quick"),
]


@pytest.mark.parametrize("row", BEHAVIOUR, ids=lambda row: f"{row[0]}-{row[1]}")
def test_fault(sandbox: Sandbox, programs: dict[str, Path], row: tuple[str, str, str | None, str]) -> None:
    """Each fault makes each libc's getaddrinfo end as the catalogue of causes says."""
    name, libc, code, pace = row
    with FAULTS[name].setup(sandbox, options=IMPATIENT if pace == "slow" else PATIENT):
        result = run(sandbox, programs, f"lookup-{libc}", "--name", "www.lab.test")
    assert result["codes"] == ({code: 1} if code else {})
    assert result["ok"] == (0 if code else 1)
    assert result["max_ms"] > SLOW_MS if pace == "slow" else result["max_ms"] < QUICK_MS


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_late_reply(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """An answer within the time-out is taken, however late it is, and not before."""
    with late_reply(300).setup(sandbox, options=PATIENT):
        result = run(sandbox, programs, f"lookup-{libc}", "--name", "www.lab.test")
    assert result["ok"] == 1
    assert 290 < result["max_ms"] < QUICK_MS


def test_every_fault_of_answers_is_tested() -> None:
    """What a server's answers do to both libcs is tested here; all faults are played for docs/matrix.md."""
    plain = [
        fault.name
        for fault in FAULTS.values()
        if fault.prepare is None and not fault.connect_port and fault.program == ("target",)
    ]
    tested = {row[0] for row in BEHAVIOUR} | {"late_reply", "connect_after_dns"}
    # These need a name, options or a program of their own: test_causes, test_causes_beyond_servers.
    elsewhere = {
        *("reply_ignored", "edns_dropped", "tcp53_silent", "mdns_timeout", "no_nameserver"),
        *("search_amplification", "stale_resolv_conf", "bypass"),
    }
    local = {fault.name for fault in (*LOCAL_FAULTS, *BEHIND_FAULTS)}
    assert set(plain) - elsewhere - local <= tested <= set(FAULTS)


def test_musl_takes_tcp_or_the_truncated_answer(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Over a truncated answer musl asks again by TCP (from 1.2.4 on), or is content with nothing."""
    with FAULTS["tcp"].setup(sandbox, options=PATIENT) as running:
        result = run(sandbox, programs, "lookup-musl", "--name", "www.lab.test")
        used_tcp = any(query["transport"] == "tcp" for query in running.queries())
    assert result["ok"] == int(used_tcp)


def test_setup_is_quick(sandbox: Sandbox) -> None:
    """No fault takes longer than half a second to be there, at least once in three tries.

    Of those that leave nothing behind: the others have a sandbox of their own. How fast a real resolver
    starts is its own affair.
    """
    plain = [fault for fault in FAULTS.values() if fault.prepare is None and fault not in BEHIND_FAULTS]
    for fault in plain:
        took_s = []
        for _ in range(3):
            started = time.monotonic()
            with fault.setup(sandbox):
                took_s.append(time.monotonic() - started)
        assert min(took_s) < 0.5, fault.name


# The demo's target.


def test_target_says_what_it_got(sandbox: Sandbox) -> None:
    """The demo's target prints one line with the addresses, the error and the time."""
    with FAULTS["nxdomain"].setup(sandbox):
        process = start(sandbox, bare_python("target", "--name", "www.lab.test"))
        result = json.loads(process.communicate(timeout=DEADLINE_S)[0])
    assert result["name"] == "www.lab.test"
    assert (result["ok"], result["addresses"], result["error"]) == (False, [], "EAI_NONAME")


def test_connect_after_dns_hangs_in_syn_sent(sandbox: Sandbox) -> None:
    """The lookup works, the connect stays in SYN_SENT, and the SYN is retransmitted."""
    with FAULTS["connect_after_dns"].setup(sandbox) as running:
        process = start(sandbox, bare_python("target", "--name", "www.lab.test", "--connect", "443"))
        states = [tcp_state(process, topology.BLACK_HOLE)]
        with told_when_gone([process.pid]) as all_gone:
            while states[-1] != ("SYN_SENT", True):
                assert not all_gone(deadline_s=0.01), states
                states.append(tcp_state(process, topology.BLACK_HOLE))
        assert running.queries()
        end(process)


def tcp_state(process: subprocess.Popen[str], address: str) -> tuple[str, bool]:
    """State of the connection to `address`, and whether anything was retransmitted."""
    wanted = "".join(f"{int(part):02X}" for part in reversed(address.split(".")))
    for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2].startswith(wanted):
            return ("SYN_SENT" if fields[3] == "02" else fields[3], int(fields[6], 16) > 0)
    return ("none", False)


# The sandbox.


@pytest.mark.parametrize("address", [topology.BLACK_HOLE, topology.BLACK_HOLE_V6])
def test_black_hole_swallows_tcp(sandbox: Sandbox, programs: dict[str, Path], address: str) -> None:
    """A connect into the black hole neither works nor fails."""
    arguments = ("--address", address, "--non-blocking", "--wait", "--timeout-ms", 300)
    result = run(sandbox, programs, "connector-glibc", *arguments)
    assert (result["timed_out"], result["failed"]) == (1, 0)


@pytest.mark.parametrize("server", [topology.BLACK_HOLE_SERVER, topology.BLACK_HOLE_SERVER_V6])
def test_black_hole_swallows_udp(sandbox: Sandbox, programs: dict[str, Path], server: str) -> None:
    """Datagrams into the black hole are sent without error, and nothing comes back, no ICMP either."""
    arguments = ("--server", server, "--connected", "--count", 3, "--timeout-ms", 50)
    result = run(sandbox, programs, "wire-glibc", *arguments)
    assert (result["sent"], result["send_errors"], result["timed_out"]) == (3, 0, 3)


def test_nothing_is_left_behind() -> None:
    """After a sandbox, the host has the mounts, links, processes and resolv.conf it had before."""

    def host() -> list[object]:
        links, etc = (sorted(Path(folder).iterdir()) for folder in ("/sys/class/net", "/etc"))
        mounts = len(Path("/proc/self/mountinfo").read_text().splitlines())
        return [links, mounts, etc, Path("/etc/resolv.conf").read_bytes()]

    before = host()
    with contextlib.ExitStack() as until_checked:
        with Sandbox() as sandbox, FAULTS["silent"].setup(sandbox) as running:
            child = sandbox.popen(["sleep", "1000"])
            pids = [sandbox.holder_pid, child.pid, running.servers[0].pid]
            all_gone = until_checked.enter_context(told_when_gone(pids))
        assert all_gone()
    assert host() == before


OWNER = """
import signal
from ebpfdns.lab.namespace import Sandbox
with Sandbox() as sandbox:
    ready_file = sandbox.new_file("ready")
    script = f"sleep 1000 & echo $! > {ready_file}.tmp; mv {ready_file}.tmp {ready_file}; sleep 1000"
    child = sandbox.popen(["sh", "-c", script], ready_file=ready_file)
    print(sandbox.holder_pid, child.pid, ready_file.read_text(), flush=True)
    signal.pause()
"""


def test_all_die_with_a_killed_owner() -> None:
    """When the owner is killed with SIGKILL, its holder, children and grandchildren end too."""
    argv, env = [sys.executable, "-c", OWNER], os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 3
        with told_when_gone(pids) as all_gone:
            owner.send_signal(signal.SIGKILL)
            assert all_gone()


def test_etc_is_private_and_replaceable(sandbox: Sandbox) -> None:
    """Inside, resolv.conf is what was written last, and the host's other files are still there."""
    for text in ("nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n"):
        sandbox.write_resolv_conf(text)
        process = sandbox.popen(["cat", "/etc/resolv.conf"], stdout=subprocess.PIPE, text=True)
        assert process.communicate()[0] == text
    process = sandbox.popen(["cat", "/etc/passwd"], stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0] == Path("/etc/passwd").read_text()


def test_a_command_that_ends_before_it_is_ready_is_an_error(sandbox: Sandbox) -> None:
    """Waiting for a ready file ends at once, with the command's name, when the command has ended."""
    with pytest.raises(EbpfdnsError, match="no-such-command"):
        sandbox.popen(["no-such-command"], ready_file=sandbox.new_file("never"), stderr=subprocess.DEVNULL)
