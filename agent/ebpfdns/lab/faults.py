"""The named faults: what can be wrong with DNS, each set up in a sandbox within milliseconds.

Owns: the table of faults, and starting the servers of one.
Must not know: who looks the name up, or what is concluded from it beyond the expected cause's id.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ebpfdns.lab import topology
from ebpfdns.lab.namespace import bare_python, end, wait_for_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

#: One rule of a server's script: the fields of `rules.Rule`.
RuleFields = dict[str, Any]

GOOD_ANSWER: RuleFields = {"answer": [topology.WEB, topology.WEB_V6]}
LATE_REPLY_DELAY_MS = 6000
WEB_PORT = 443


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One DNS server process: where it listens, what it does."""

    listen: tuple[str, ...]
    script: tuple[RuleFields, ...]

    def argv(self, ready_file: Path, log_file: Path | None) -> list[str]:
        """The command that runs this server."""
        listen = [word for address in self.listen for word in ("--listen", address)]
        files = ["--ready-file", str(ready_file)]
        files += ["--log-file", str(log_file)] if log_file else []
        return bare_python("dns_server", *listen, "--script", json.dumps(self.script), *files)


@dataclass(frozen=True, slots=True)
class SilentListener:
    """A TCP server process that takes connections and never answers."""

    listen: tuple[str, ...]
    port: int

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        listen = [word for address in self.listen for word in ("--listen", address)]
        port = str(self.port)
        return bare_python("stream_listener", *listen, "--port", port, "--ready-file", str(ready_file))


@dataclass(frozen=True, slots=True)
class Running:
    """A fault that is set up: its server processes, and the files with one JSON line per query."""

    servers: tuple[subprocess.Popen[Any], ...]
    log_files: tuple[Path, ...]

    def queries(self) -> list[dict[str, Any]]:
        """Every query the servers have logged so far, in order of arrival."""
        lines = [line for log in self.log_files if log.exists() for line in log.read_text().splitlines()]
        return sorted(map(json.loads, lines), key=lambda entry: int(entry["at_ns"]))


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which DNS goes wrong, or does not."""

    name: str
    sentence: str
    nameservers: tuple[str, ...] = (topology.SERVER_1,)
    servers: tuple[ServerPlan | SilentListener, ...] = field(default_factory=tuple)
    expected_cause: str | None = None
    on_the_way: tuple[str, ...] = ()  # causes that are true, too, before what tells them from it has happened
    connect_port: int | None = None  # the target should connect to the answer, on this port
    uses_tls: bool = False  # … and begin a TLS handshake there

    def resolv_conf(self, options: str = "") -> str:
        """The text for /etc/resolv.conf; `options` as in "timeout:1 attempts:1"."""
        lines = [f"nameserver {address}\n" for address in self.nameservers]
        return "".join(lines) + (f"options {options}\n" if options else "")

    @contextlib.contextmanager
    def setup(self, sandbox: Sandbox, *, options: str = "", log: bool = True) -> Iterator[Running]:
        """Start the servers in `sandbox`, write its resolv.conf, wait until all listen.

        `log=False` is for load: a logged query costs the server three times as much, and 150 bytes of memory.
        """
        sandbox.write_resolv_conf(self.resolv_conf(options))
        started: list[tuple[subprocess.Popen[Any], Path, Path]] = []
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                ready_file, log_file = sandbox.new_file("ready"), sandbox.new_file("queries")
                process = sandbox.popen(server.argv(ready_file, log_file if log else None))
                stack.callback(end, process)
                started.append((process, ready_file, log_file))
            for process, ready_file, _ in started:  # they start side by side
                wait_for_file(ready_file, process)
            yield Running(tuple(entry[0] for entry in started), tuple(entry[2] for entry in started))


def _server(*script: RuleFields, listen: str = topology.SERVER_1) -> tuple[ServerPlan, ...]:
    """A single server with this script."""
    return (ServerPlan((listen,), script),)


def late_reply(delay_ms: float = LATE_REPLY_DELAY_MS) -> Fault:
    """The fault `late_reply` with a delay of your choice."""
    return Fault(
        name="late_reply",
        sentence=f"The server answers every question {delay_ms / 1000:g} s late.",
        servers=_server({**GOOD_ANSWER, "delay_ms": delay_ms}),
        expected_cause="late_reply",
        on_the_way=("ns_silent",),  # until the answer comes
    )


TABLE = (
    Fault(
        name="healthy",
        sentence="The server answers at once.",
        servers=_server(GOOD_ANSWER),
    ),
    Fault(
        name="silent",
        sentence="The server takes every question and never answers.",
        servers=_server({"drop": True}),
        expected_cause="ns_silent",
    ),
    Fault(
        name="refused",
        sentence="Nothing listens on port 53: the host answers that the port is unreachable.",
        expected_cause="ns_refused",
    ),
    Fault(
        name="unreachable",
        sentence="There is no route to the server.",
        nameservers=(topology.NO_ROUTE,),
        expected_cause="ns_unreachable",
    ),
    Fault(
        name="servfail",
        sentence="The server answers every question with SERVFAIL.",
        servers=_server({"rcode": 2}),
        expected_cause="rcode_retry",
    ),
    Fault(
        name="nxdomain",
        sentence="The server answers at once that there is no such name, which is no fault of DNS.",
        servers=_server({"rcode": 3}),
    ),
    Fault(
        name="one_reply_lost",
        sentence="The question for IPv4 is answered, the one for IPv6 never is.",
        servers=_server({"type": "AAAA", "drop": True}, GOOD_ANSWER),
        expected_cause="one_reply_lost",
    ),
    late_reply(),
    Fault(
        name="tcp",
        sentence="The answer is too long for UDP, so it comes over TCP: slower, and fine.",
        servers=_server({"transport": "udp", "truncate": True}, GOOD_ANSWER),
    ),
    Fault(
        name="first_ns_dead",
        sentence="Packets to the first server vanish; the second one answers.",
        nameservers=(topology.BLACK_HOLE_SERVER, topology.SERVER_2),
        servers=_server(GOOD_ANSWER, listen=topology.SERVER_2),
        expected_cause="first_ns_dead",
    ),
    Fault(
        name="connect_after_dns",
        sentence="The name resolves at once; the address it gives swallows every packet.",
        servers=_server({"answer": [topology.BLACK_HOLE]}),
        expected_cause="connect_after_dns",
        connect_port=WEB_PORT,
    ),
    Fault(
        name="ipv6_first_blackholed",
        sentence="The name has an IPv6 address that swallows every packet, and an IPv4 address that works.",
        servers=(
            *_server({"answer": [topology.WEB, topology.BLACK_HOLE_V6]}),
            SilentListener((topology.WEB,), WEB_PORT),
        ),
        expected_cause="ipv6_first_blackholed",
        connect_port=WEB_PORT,
    ),
    Fault(
        name="tls_stall",
        sentence="The name resolves, its server takes the connection, and never answers the TLS handshake.",
        servers=(*_server({"answer": [topology.WEB]}), SilentListener((topology.WEB,), WEB_PORT)),
        expected_cause="tls_stall",
        connect_port=WEB_PORT,
        uses_tls=True,
    ),
)

#: name → fault, in the order of the table.
FAULTS = {fault.name: fault for fault in TABLE}
