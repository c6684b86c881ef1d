"""What a fault is, and how it is set up: servers and daemons that misbehave, files that say the wrong thing.

Owns: these plans, and starting the processes of one.
Must not know: which faults there are (`faults`), who looks the name up, or what is concluded from it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ebpfdns.lab import topology
from ebpfdns.lab.namespace import bare_python, end, wait_for_file

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ebpfdns.lab.namespace import Sandbox

#: One rule of a server's script: the fields of `rules.Rule`.
RuleFields = dict[str, Any]


class Plan(Protocol):
    """A process that a fault needs."""

    def argv(self, ready_file: Path, log_file: Path | None, /) -> list[str]:
        """The command that runs it, and creates the ready file once it listens."""
        ...


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
    tls: str | None = None  # key and certificate: it does shake hands

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        listen = [word for address in self.listen for word in ("--listen", address)]
        listen += ["--tls", self.tls] if self.tls else []
        port = str(self.port)
        return bare_python("stream_listener", *listen, "--port", port, "--ready-file", str(ready_file))


@dataclass(frozen=True, slots=True)
class StuckDaemon:
    """A local daemon that is stuck: the options of `stuck_daemon`."""

    words: tuple[str, ...]

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        return bare_python("stuck_daemon", *self.words, "--ready-file", str(ready_file))


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
    servers: tuple[Plan, ...] = field(default_factory=tuple)
    expected_cause: str | None = None
    on_the_way: tuple[str, ...] = ()  # causes that are true, too, before what tells them from it has happened
    connect_port: int | None = None  # the target should connect to the answer, on this port
    uses_tls: bool = False  # … and begin a TLS handshake there
    name_asked: str = topology.NAME
    search: tuple[str, ...] = ()  # of resolv.conf
    options: str = ""  # of resolv.conf, always
    #: the module of the lab that looks up, with words of its own; only `target` tells what came of it
    program: tuple[str, ...] = ("target",)
    command: tuple[str, ...] = ()  # instead: a program that takes the same options
    environment: tuple[tuple[str, str], ...] = ()  # of the program
    prepare: Callable[[Sandbox], None] | None = None  # further files

    def resolv_conf(self, options: str = "") -> str:
        """The text for /etc/resolv.conf; `options` as in "timeout:1 attempts:1"."""
        lines = [f"nameserver {address}\n" for address in self.nameservers]
        lines += [f"search {' '.join(self.search)}\n"] if self.search else []
        words = " ".join(filter(None, [options, self.options]))
        return "".join(lines) + (f"options {words}\n" if words else "")

    @contextlib.contextmanager
    def setup(self, sandbox: Sandbox, *, options: str = "", log: bool = True) -> Iterator[Running]:
        """Start the servers in `sandbox`, write its resolv.conf, wait until all listen.

        `log=False` is for load: a logged query costs the server three times as much, and 150 bytes of memory.
        """
        sandbox.write_resolv_conf(self.resolv_conf(options))
        if self.prepare is not None:
            self.prepare(sandbox)
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
