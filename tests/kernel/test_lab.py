"""The lab itself, on the real kernel with the real libcs: what it promises to other tests must be true."""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab import topology
from ebpfdns.lab.faults import FAULTS, Fault, ServerPlan, late_reply
from ebpfdns.lab.local_faults import LOCAL_FAULTS
from ebpfdns.lab.namespace import Sandbox, bare_python, end

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")]

WORKLOADS = Path(__file__).parents[1] / "workloads" / "build.py"
NOT_POSSIBLE_HERE = 3
DEADLINE_S = 30
IMPATIENT = "timeout:1 attempts:1"  # what is slow takes a second, or three
PATIENT = "timeout:15 attempts:1"  # what is quick ends long before a single time-out
SLOW_MS, QUICK_MS = 900, 10_000

PAIRS = {
    "sendto": "recvfrom",
    "send": "recv",
    "sendmsg": "recvmsg",
    "sendmmsg": "recvmmsg",
    "write": "read",
    "writev": "readv",
}
WAITS = ("epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6")
RUDE = ("--longjmp", "--exec", "--cancel", "--fork-child", "--signal-thread-exit-ms=200")


@pytest.fixture(scope="module")
def programs() -> dict[str, Path]:
    built: dict[str, Path] = runpy.run_path(str(WORKLOADS))["build"]()
    return built


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def start(sandbox: Sandbox, argv: list[Any]) -> subprocess.Popen[str]:
    ready_file, go_file = sandbox.new_file("ready"), sandbox.new_file("go")
    command = [*argv, "--ready-file", ready_file, "--go-file", go_file]
    process = sandbox.popen(command, ready_file=ready_file, stdout=subprocess.PIPE, text=True)
    go_file.touch()
    return process


def run(sandbox: Sandbox, programs: dict[str, Path], name: str, *arguments: object) -> dict[str, Any]:
    if name not in programs:
        pytest.skip(f"{name} cannot be built here")
    process = start(sandbox, [programs[name], *arguments])
    output = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 0, output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def serving(*script: dict[str, Any], listen: tuple[str, ...] = (topology.SERVER_1,)) -> Fault:
    return Fault(name="own", sentence="The test's own.", servers=(ServerPlan(listen, script),))


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
    local = {fault.name for fault in LOCAL_FAULTS}
    assert set(plain) - elsewhere - local <= tested <= set(FAULTS)


def test_musl_takes_tcp_or_the_truncated_answer(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Over a truncated answer musl asks again by TCP (from 1.2.4 on), or is content with nothing."""
    with FAULTS["tcp"].setup(sandbox, options=PATIENT) as running:
        result = run(sandbox, programs, "lookup-musl", "--name", "www.lab.test")
        used_tcp = any(query["transport"] == "tcp" for query in running.queries())
    assert result["ok"] == int(used_tcp)


def test_setup_is_quick(sandbox: Sandbox) -> None:
    """No fault takes longer than half a second to be there, at least once in three tries.

    Of those that leave nothing behind: the others have a sandbox of their own.
    """
    for fault in (fault for fault in FAULTS.values() if fault.prepare is None):
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


# The server, by a client that is no resolver.


@pytest.mark.parametrize("server", [topology.SERVER_1, topology.SERVER_1_V6])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_wire_pairs(
    sandbox: Sandbox, programs: dict[str, Path], server: str, transport: str, libc: str
) -> None:
    """Each pair of send and receive calls gets an answer to each query, over every transport and family."""
    with serving({"answer": ["192.0.2.10"]}, listen=(server,)).setup(sandbox) as running:
        for send, receive in PAIRS.items():
            if (send, transport) == ("sendmmsg", "tcp"):
                continue
            how = ("--send", send, "--receive", receive, *(("--tcp",) if transport == "tcp" else ()))
            result = run(sandbox, programs, f"wire-{libc}", "--server", server, "--count", 5, *how)
            assert (result["sent"], result["answered"]) == (5, 5), send
        assert {query["transport"] for query in running.queries()} == {transport}
        assert {query["server"] for query in running.queries()} == {server}


@pytest.mark.parametrize("how", ["--pack", "--split-prefix"])
def test_tcp_messages_in_odd_segments(sandbox: Sandbox, programs: dict[str, Path], how: str) -> None:
    """Two messages in one segment, or a length alone in one, are all answered."""
    with FAULTS["healthy"].setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--tcp", how, "--count", 4)
    assert result["answered"] == 4


def test_io_uring(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """Where the kernel allows io_uring, queries through it are answered like any others."""
    with FAULTS["healthy"].setup(sandbox):
        process = sandbox.popen(
            [programs["wire-glibc"], "--io-uring", "--count", "5"], stdout=subprocess.PIPE, text=True
        )
        output = process.communicate(timeout=DEADLINE_S)[0]
    if process.returncode == NOT_POSSIBLE_HERE:
        pytest.skip("io_uring is disabled here")
    assert json.loads(output)["answered"] == 5


@pytest.mark.parametrize(
    ("rule", "arguments", "expected"),
    [
        ({"answer": [], "flip_id": True}, (), {"answered": 0, "unexpected": 1}),
        ({"answer": [], "source": topology.SERVER_2}, (), {"answered": 1}),
        ({"answer": [], "source": topology.SERVER_2}, ("--connected",), {"answered": 0, "timed_out": 1}),
        ({"answer": [], "half": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"drop": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"close": True}, ("--tcp",), {"answered": 0, "timed_out": 1}),
        ({"answer": [], "delay_ms": 30}, (), {"answered": 1}),
        ({"answer": [], "delay_ms": 30}, ("--tcp",), {"answered": 1}),
    ],
)
def test_odd_replies(
    sandbox: Sandbox,
    programs: dict[str, Path],
    rule: dict[str, Any],
    arguments: tuple[str, ...],
    expected: dict[str, int],
) -> None:
    """Each way to answer badly reaches the client as such: unfit, cut, from elsewhere, or not at all."""
    with serving(rule).setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--timeout-ms", 200, *arguments)
    assert expected.items() <= result.items()


def test_only_the_nth_query_is_dropped(sandbox: Sandbox, programs: dict[str, Path]) -> None:
    """A rule for the first query leaves the second to the rules behind it."""
    with serving({"nth": 1, "drop": True}, {"answer": []}).setup(sandbox):
        result = run(sandbox, programs, "wire-glibc", "--timeout-ms", 50, "--count", 3)
    assert (result["answered"], result["timed_out"]) == (2, 1)


@pytest.mark.parametrize("names", [(), ("--unique",)])
def test_server_stands_the_load(sandbox: Sandbox, programs: dict[str, Path], names: tuple[str, ...]) -> None:
    """Twenty thousand queries, as fast as they come, are all answered: the load tests' floor."""
    with FAULTS["healthy"].setup(sandbox, log=False):
        result = run(sandbox, programs, "wire-glibc", "--rate", 0, "--count", 20_000, *names)
    assert result["answered"] == result["sent"] == 20_000


# The other workloads.


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@pytest.mark.parametrize("call", WAITS)
def test_waiter(sandbox: Sandbox, programs: dict[str, Path], libc: str, call: str) -> None:
    """Each waiting call returns with an event when there is one, and without when time is over."""
    ready = run(sandbox, programs, f"waiter-{libc}", "--call", call, "--is-ready", "--timeout-ms", -1)
    assert (ready["with_events"], ready["failed"]) == (1, 0)
    idle = run(sandbox, programs, f"waiter-{libc}", "--call", call, "--timeout-ms", 20, "--count", 2)
    assert (idle["timed_out"], idle["failed"]) == (2, 0)
    assert idle["elapsed_ms"] > 35


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--address", topology.WEB, "--count", 20, "--parallel"), "ECONNREFUSED"),
        (("--address", "::1", "--non-blocking", "--wait", "--count", 20), "ECONNREFUSED"),
        (("--address", topology.NO_ROUTE, "--count", 20), "ENETUNREACH"),
        (("--unix", "/no/such/socket", "--count", 20), "ENOENT"),
        (("--unix", "@no-such-socket", "--count", 20), "ECONNREFUSED"),
    ],
)
def test_connector(
    sandbox: Sandbox, programs: dict[str, Path], arguments: tuple[Any, ...], code: str
) -> None:
    """Connects that must fail do, each with the errno its story needs."""
    assert run(sandbox, programs, "connector-musl", *arguments)["codes"] == {code: 20}


@pytest.mark.parametrize("libc", ["glibc", "musl", "musl-static", "musl-stripped"])
def test_many_threads_look_up(sandbox: Sandbox, programs: dict[str, Path], libc: str) -> None:
    """A thousand threads, released at once, each get their answer."""
    with FAULTS["healthy"].setup(sandbox, options=PATIENT):
        result = run(sandbox, programs, f"lookup-{libc}", "--name", "lab.test", "--threads", 1000, "--unique")
    assert result["ok"] == 1000


@pytest.mark.parametrize("libc", ["glibc", "musl"])
@pytest.mark.parametrize("how", RUDE)
def test_rude_ways_out_of_a_lookup(sandbox: Sandbox, programs: dict[str, Path], how: str, libc: str) -> None:
    """The program survives each way of leaving a lookup half-way, and its last line counts what is left."""
    with FAULTS["silent"].setup(sandbox, options=IMPATIENT):
        arguments = ("--name", "www.lab.test", how, "--then-name", "192.0.2.1")
        result = run(sandbox, programs, f"lookup-{libc}", *arguments)
    left_over = {"--exec": (1, 0, 0), "--longjmp": (1, 0, 1), "--fork-child": (0, 1, 0)}
    assert (result["ok"], result["failed"], result["abandoned"]) == left_over.get(how, (0, 0, 1))
