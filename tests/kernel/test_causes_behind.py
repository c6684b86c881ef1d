"""Behind real local resolvers: systemd-resolved, dnsmasq and unbound, each with a server that is wrong.

The program asks by glibc or musl through the stub, or by nss-resolve over its local socket. The daemons run
in the sandbox: nothing is installed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import packages
import pytest
from agent import Agent, of, only
from play import SOON, again, whole
from program import Program, of_this_machine

from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault
from ebpfdns.lab.faults import FAULTS, GOOD_ANSWER, ServerPlan
from ebpfdns.lab.local_faults import nsswitch
from ebpfdns.lab.namespace import Sandbox, bare_python, end, plain_environment
from ebpfdns.lab.real_daemons import FORWARDER, RESOLVE, STUB, Dnsmasq, Resolved, configure_resolved
from ebpfdns.observe import process_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Line = dict[str, Any]

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="attaching needs root")]

NAME = "www.lab.test"
#: long enough for the third report, after 1.2 s
PATIENT = "timeout:3 attempts:1"
IN_TIME_MS = 300 + 500
SURELY_S = 20.0
DOT, STALLED, SILENT = "resolved_dot_blocked", "resolved_dot_stalled", "resolved_upstream_silent"
WAYS = {"glibc": STUB, "musl": STUB, "go": STUB, "resolve": RESOLVE}
UPSTREAM = [topology.BLACK_HOLE_SERVER, 53]


@pytest.fixture(autouse=True)
def daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real daemons, unpacked, are found by the lab."""
    for name, value in packages.daemons().items():
        monkeypatch.setenv(name, value)


def needed(fault: Fault) -> Fault:
    if not packages.has_daemon(fault):
        pytest.skip(f"the daemon of {fault.name} cannot be had here")
    return fault


@pytest.fixture
def client(
    sandbox: Sandbox, programs: dict[str, Path], go_program: Callable[..., Path]
) -> Callable[[str], Program]:
    """Starts a program that looks the name up: by glibc, musl or Go, or over the local socket."""

    def start(way: str, *words: object) -> Program:
        source = "files resolve [!UNAVAIL=return] dns" if way == "resolve" else "files dns"
        (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch(source))
        if way == "go":
            return Program(sandbox, [go_program(), "--name", NAME, "--way", "ip"], env=plain_environment())
        program = of_this_machine(programs, f"lookup-{'musl' if way == 'musl' else 'glibc'}")
        return Program(sandbox, [program, "--name", NAME, *words], env=plain_environment())

    return start


def third(line: Line) -> bool:
    return line["event"] == "lookup_stuck" and line["lookup"]["update"] == 3


def stuck(program: Program, *words: object) -> list[Line]:
    """The first three reports of its lookup; the program is killed then."""
    with Agent("attach", "--pid", program.pid, "--stuck-after", SOON, *words) as agent:
        program.go()
        try:
            agent.wait_for(third, deadline_s=SURELY_S)
        except AssertionError:
            program.process.kill()
            whole(agent.finish())  # its call may have been passed over: then it is played again
            raise
        program.process.kill()
        return of(whole(agent.finish()), "lookup_stuck")


def verdict(line: Line) -> tuple[str, str]:
    return line["cause"]["id"], line["cause"]["confidence"]


def facts(line: Line) -> dict[str, Line]:
    return {fact["fact"]: fact for fact in line["cause"]["evidence"]}


@pytest.mark.parametrize("way", WAYS)
@again
def test_tls_is_blocked(sandbox: Sandbox, client: Callable[..., Program], way: str) -> None:
    """SYNs to port 853 that vanish are the cause, with the whole chain, from the first report on."""
    with needed(FAULTS[DOT]).setup(sandbox, options=PATIENT) as running:
        lines = stuck(client(way))
    assert {line["cause"]["id"] for line in lines} == {DOT}
    assert lines[0]["lookup"]["elapsed_ms"] < IN_TIME_MS
    for line in lines:
        (hop,) = line["chain"]
        assert (hop["role"], hop["asked_at"], hop["state"]) == ("stub", WAYS[way], "waiting")
        assert hop["process"]["pid"] == running.servers[0].pid
        assert hop["process"]["executable"]["name"] == "systemd-resolved"
        (connect,) = hop["connects"]
        assert (connect["purpose"], connect["status"], hop["queries"]) == ("dot", "in_flight", [])
        assert connect["server"] == {"address": topology.BLACK_HOLE_SERVER, "port": 853}
        assert connect["tcp"]["state"] == "SYN_SENT"
        assert 0 < connect["elapsed_ms"] <= line["lookup"]["elapsed_ms"]
    assert verdict(lines[2]) == (DOT, "confirmed")
    found = facts(lines[2])
    assert found["syn_retransmitted"]["retransmits"] >= 1
    assert {"hop_found", "dot_strict"} < found.keys()


@pytest.mark.parametrize("name", [DOT, SILENT])
@again
def test_a_later_systemd(
    sandbox: Sandbox, client: Callable[..., Program], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What is true of systemd-resolved 252 is true of a later one."""
    for variable, value in packages.newer_resolved().items():
        monkeypatch.setenv(variable, value)
    with needed(FAULTS[name]).setup(sandbox, options=PATIENT):
        lines = stuck(client("glibc"))
    assert [line["cause"]["id"] for line in lines] == [name] * 3
    (hop,) = lines[2]["chain"]
    assert packages.NEWER in hop["process"]["executable"]["path"]
    assert hop["state"] == "waiting"


@pytest.mark.parametrize("way", ["glibc", "resolve"])
@again
def test_tls_stalls(sandbox: Sandbox, client: Callable[..., Program], way: str) -> None:
    """A server that takes the connection and never answers the TLS hello is told from one that does not."""
    with needed(FAULTS[STALLED]).setup(sandbox, options=PATIENT):
        lines = stuck(client(way))
    assert [line["cause"]["id"] for line in lines] == [DOT] * 3
    assert verdict(lines[2]) == (DOT, "confirmed")
    (connect,) = lines[2]["chain"][0]["connects"]
    assert (connect["phase"], connect["tcp"]["state"]) == ("tls", "ESTABLISHED")
    assert connect["tcp"]["bytes_sent"] > 0
    assert connect["tcp"]["bytes_received"] == 0
    assert {"dot_hello_unanswered", "dot_strict"} < facts(lines[2]).keys()
    assert not {"syn_retransmitted", "dot_silent"} & facts(lines[2]).keys()


@again
def test_tls_session_is_silent(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """A server that shakes hands and does not answer is told by what went each way: nothing is decrypted."""
    with needed(FAULTS["resolved_dot_silent"]).setup(sandbox, options=PATIENT):
        lines = stuck(client("glibc"))
    assert verdict(lines[2]) == (DOT, "confirmed")
    assert facts(lines[2])["dot_silent"]["bytes_received"] > 0
    assert not {"syn_retransmitted", "dot_hello_unanswered"} & facts(lines[2]).keys()
    assert lines[2]["chain"][0]["state"] == "waiting"


@pytest.mark.parametrize("way", WAYS)
@again
def test_upstream_is_silent(sandbox: Sandbox, client: Callable[..., Program], way: str) -> None:
    """systemd-resolved that waits for its own server has the very question open, and is not blamed."""
    with needed(FAULTS[SILENT]).setup(sandbox, options=PATIENT):
        lines = stuck(client(way))
    assert [line["cause"]["id"] for line in lines] == [SILENT] * 3
    assert lines[0]["lookup"]["elapsed_ms"] < IN_TIME_MS
    (hop,) = lines[2]["chain"]
    assert hop["joined"] is True
    assert {query["name"] for query in hop["queries"]} == {f"{NAME}."}
    assert {query["type"] for query in hop["queries"]} == {"A", "AAAA"}
    assert {tuple(query["server"].values()) for query in hop["queries"]} == {tuple(UPSTREAM)}
    assert facts(lines[2])["upstream_no_reply"]["joined"] is True


@pytest.mark.parametrize("name", ["forwarder_upstream_silent", "unbound_upstream_silent"])
@again
def test_forwarder_waits(sandbox: Sandbox, client: Callable[..., Program], name: str) -> None:
    """A forwarder with a silent server is told from a silent server of the program's own; sure in the end."""
    with needed(FAULTS[name]).setup(sandbox, options="timeout:1 attempts:1") as running:
        program = client("glibc")
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            program.go()
            lines = whole(agent.finish())
    told = [*of(lines, "lookup_stuck"), only(lines, "lookup")]
    assert {line["cause"]["id"] for line in told} == {"forwarder_upstream_silent"}
    assert verdict(told[-1])[1] == "confirmed"
    (hop,) = told[0]["chain"]
    assert (hop["process"]["pid"], hop["asked_at"]) == (running.servers[0].pid, FORWARDER)
    assert hop["joined"] is True
    # What a daemon asks is nobody's lookup: it is in the chain, and not in the counters.
    stats = lines[-1]["stats"]
    assert (stats["lookups"]["started"], stats["queries"]["sent"], stats["targets"]) == (1, 2, 0)


@again
def test_two_daemons(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """systemd-resolved asks dnsmasq, whose server is silent: both hops, and the last one's cause."""
    prepare = partial(configure_resolved, servers=FORWARDER)
    daemons = (Dnsmasq((topology.BLACK_HOLE_SERVER,)), Resolved())
    fault = Fault("resolved_and_dnsmasq", "Two daemons.", (STUB,), daemons, prepare=prepare)
    needed(FAULTS["forwarder_upstream_silent"])
    with needed(fault).setup(sandbox, options=PATIENT) as running:
        lines = stuck(client("glibc"))
    hops = lines[2]["chain"]
    assert [hop["role"] for hop in hops] == ["stub", "upstream"]
    assert [hop["process"]["pid"] for hop in hops] == [server.pid for server in reversed(running.servers)]
    assert lines[2]["cause"]["id"] == "forwarder_upstream_silent"
    assert "dnsmasq" in lines[2]["cause"]["summary"]


def accepts(local_socket: Path) -> bool:
    """Whether somebody listens there; one that was killed before may have left the file."""
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(str(local_socket)) == 0


@pytest.mark.parametrize(
    ("way", "cause"), [("glibc", "resolved_stub_silent"), ("resolve", "resolved_ipc_stall")]
)
@again
def test_stopped(sandbox: Sandbox, client: Callable[..., Program], way: str, cause: str) -> None:
    """systemd-resolved that is stopped is to blame itself, whatever waits behind it."""
    with needed(FAULTS[SILENT]).setup(sandbox, options=PATIENT) as running:
        daemon = running.servers[0]
        local_socket = sandbox.root / RESOLVE.lstrip("/")
        while not accepts(local_socket):  # it makes this one after the stub
            time.sleep(0.002)
        daemon.send_signal(signal.SIGSTOP)
        lines = stuck(client(way))
        daemon.send_signal(signal.SIGCONT)
    assert verdict(lines[2]) == (cause, "confirmed")
    assert facts(lines[2])["peer_stopped"]["pid"] == daemon.pid


@pytest.mark.parametrize(("way", "name"), [("glibc", SILENT), ("resolve", DOT)])
@again
def test_stuck_before(sandbox: Sandbox, client: Callable[..., Program], way: str, name: str) -> None:
    """Of a daemon that has asked before tracing began its sockets tell: the chain is there."""
    with needed(FAULTS[name]).setup(sandbox, options="timeout:9 attempts:1") as running:
        program = client(way)
        program.go()
        while not has_asked(running.servers[0].pid):
            time.sleep(0.002)
        with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
            agent.wait_for(third)
            program.process.kill()
            lines = of(whole(agent.finish()), "lookup_stuck")
    assert lines[2]["lookup"]["since"] == "before_attach"
    assert lines[2]["cause"]["id"] == name
    (hop,) = lines[2]["chain"]
    assert (hop["process"]["pid"], hop["joined"]) == (running.servers[0].pid, False)
    asked = hop["connects"] if name == DOT else hop["queries"]
    assert {one["server"]["address"] for one in asked} == {topology.BLACK_HOLE_SERVER}


def has_asked(pid: int) -> bool:
    """Whether it has a socket to its server."""
    return any(facts["remote"] for facts in process_snapshot.dns_sockets(pid) or ())


@again
def test_healthy(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """A stub that answers has no cause; the daemon is told of as followed, and let go at the end."""
    prepare = partial(configure_resolved, servers=topology.SERVER_1)
    servers = (ServerPlan((topology.SERVER_1,), (GOOD_ANSWER,)), Resolved())
    fault = Fault("resolved_healthy", "All is well.", (STUB,), servers, prepare=prepare)
    with needed(fault).setup(sandbox, options=PATIENT):
        program = client("glibc")
        with Agent("attach", "--pid", program.pid, "--all") as agent:
            program.go()
            lines = whole(agent.finish())
    ended = only(lines, "lookup")
    assert (ended["lookup"]["status"], ended.get("cause"), ended["chain"]) == ("ok", None, [])
    followed = [line for line in of(lines, "target") if line["target"].get("role") == "supporting"]
    assert [line["target"]["status"] for line in followed] == ["attached", "detached"]


@pytest.mark.parametrize("way", ["glibc", "musl", "go"])
@again
def test_unsigned_answers_are_refused(sandbox: Sandbox, client: Callable[..., Program], way: str) -> None:
    """systemd-resolved that must validate refuses unsigned answers; the chain has what it was told."""
    with needed(FAULTS["resolved_dnssec"]).setup(sandbox, options=PATIENT) as running:
        program = client(way)
        with Agent("attach", "--pid", program.pid) as agent:
            program.go()
            lines = whole(agent.finish())
    ended = only(lines, "lookup")
    assert ended["cause"]["id"] == "rcode_retry"
    found = facts(ended)
    assert {"rcode_error", "dnssec_validated", "upstream_answered"} == found.keys()
    told = found["upstream_answered"]
    assert (told["server"], told["pid"]) == (topology.SERVER_1, running.servers[1].pid)
    (hop,) = ended["chain"]
    assert (hop["role"], hop["asked_at"], hop["state"], hop["joined"]) == ("stub", STUB, "seen_before", True)
    assert hop["process"]["executable"]["name"] == "systemd-resolved"
    ours = [query for query in hop["queries"] if query["type"] == "A"]
    assert {(query["name"], query["rcode"], query["state"]) for query in ours} == {
        (f"{NAME}.", "NOERROR", "answered")
    }


@again
def test_found_late(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """A forwarder that no configuration names is followed once a question waits for it."""
    fault = needed(FAULTS["forwarder_upstream_silent"])
    with fault.setup(sandbox, options=PATIENT):
        sandbox.write_resolv_conf(f"nameserver {topology.SERVER_1}\n")
        program = client("glibc")
        with Agent("attach", "--pid", program.pid, "--stuck-after", "500ms") as agent:
            sandbox.write_resolv_conf(fault.resolv_conf("timeout:1 attempts:2"))
            program.go()
            lines = whole(agent.finish())
    assert only(lines, "lookup")["cause"]["id"] == "forwarder_upstream_silent"
    assert of(lines, "lookup_stuck")[0]["chain"][0]["process"]["executable"]["name"] == "dnsmasq"


@again
def test_in_another_network_namespace(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """A server like Docker's, which listens in the container and asks from the host, is followed to there."""
    docker = "127.0.0.11"
    sandbox.write_resolv_conf(f"nameserver {docker}\noptions {PATIENT}\n")
    with Sandbox() as host:
        ready_file = host.new_file("ready")
        words = ["--namespace-of", sandbox.holder_pid, "--listen", docker]
        words += ["--server", topology.BLACK_HOLE_SERVER, "--ready-file", ready_file]
        server = host.popen(bare_python("split_server", *map(str, words)), ready_file=ready_file)
        lines = stuck(client("glibc"))
        end(server)
    assert {line["cause"]["id"] for line in lines} == {"forwarder_upstream_silent"}
    (hop,) = lines[2]["chain"]
    assert (hop["process"]["pid"], hop["asked_at"], hop["joined"]) == (server.pid, docker, True)


#: asks for 1,300 names that nobody answers, then passes on what it is asked, and keeps silent
CROWDED = """
import socket, sys
upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
upstream.connect((sys.argv[1], 53))
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind(("127.0.0.1", 53))
open(sys.argv[2], "w").close()
first = listener.recv(512)
for i in range(1300):
    name = b"".join(bytes([len(part)]) + part for part in (b"n%d" % i, b"lab", b"test", b""))
    upstream.send(i.to_bytes(2, "big") + b"\\1\\0\\0\\1" + bytes(6) + name + b"\\0\\1\\0\\1")
while True:
    upstream.send(first)
    first = listener.recv(512)
"""


@again
def test_a_crowded_daemon(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """A daemon with more questions open than are kept takes no room from the target, and nothing is lost."""
    sandbox.write_resolv_conf(f"nameserver {FORWARDER}\noptions {PATIENT}\n")
    ready_file = sandbox.new_file("ready")
    words = ["-c", CROWDED, topology.BLACK_HOLE_SERVER, str(ready_file)]
    server = sandbox.popen([sys.executable, *words], ready_file=ready_file)
    program = client("glibc")
    with Agent("attach", "--pid", program.pid, "--stuck-after", SOON) as agent:
        program.go()
        agent.wait_for(third)
        program.process.kill()
        lines = whole(agent.finish())
    end(server)
    told = of(lines, "lookup_stuck")
    assert {line["cause"]["id"] for line in told} == {"forwarder_upstream_silent"}
    (hop,) = told[2]["chain"]
    assert (hop["process"]["pid"], hop["joined"]) == (server.pid, False)
    assert (lines[-1]["stats"]["lookups"]["started"], lines[-1]["stats"]["lost"]) == (1, {})


@again
def test_not_followed(sandbox: Sandbox, client: Callable[..., Program]) -> None:
    """With --no-follow nothing but the program itself is traced, and the cause is no surer than that."""
    with needed(FAULTS[DOT]).setup(sandbox, options=PATIENT):
        lines = stuck(client("glibc"), "--no-follow")
    assert verdict(lines[2]) == ("resolved_stub_silent", "likely")
    assert lines[2]["chain"] == []
    told = [datetime.fromisoformat(line["ts"]) for line in lines]
    assert told == sorted(told)


@again
def test_tls_is_tried_first(client: Callable[..., Program], sandbox: Sandbox) -> None:
    """systemd-resolved that may go on in the clear is told from one that may not. Last: its wall stays."""
    with needed(FAULTS["resolved_degraded"]).setup(sandbox, options=PATIENT):
        lines = stuck(client("glibc"))
    assert {line["cause"]["id"] for line in lines} == {"resolved_degraded"}
    assert verdict(lines[2])[1] == "confirmed"
    assert {"syn_retransmitted", "dot_opportunistic"} < facts(lines[2]).keys()
