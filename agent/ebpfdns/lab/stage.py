"""The demo's stage: a program in a sandbox with a fault, and the real agent beside it on the host.

Owns: starting both, releasing the program once the agent is ready, the agent's lines, ending all.
Must not know: what the lines say (`story` does), how they are shown.

The agent is a process like any user's. It runs in a session of its own, so that Ctrl-C reaches it through
us, in order. Should we be killed, the sandbox takes the program down, and an agent without targets ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ebpfdns.errors import EbpfdnsError
from ebpfdns.lab.namespace import (
    PACKAGE_PARENT,
    Sandbox,
    bare_python,
    end,
    plain_environment,
    wait_for_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ebpfdns.lab.faults import Fault

#: `-P`: a folder named ebpfdns in the working directory must not be what root runs.
AGENT = (sys.executable, "-P", "-m", "ebpfdns")
OWN_SETTINGS = "EBPFDNS_ATTACH_"  # of the caller's environment: a demo must not write to their `--output`
END_DEADLINE_S = 60.0
TERMINATE_DEADLINE_S = 5.0
READ_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """How to show one fault within a few seconds."""

    resolver_options: str = "timeout:3 attempts:1"  # a lookup of a silent server ends after 3 s, not after 10
    gets_stuck: bool = True
    shows_all: bool = False  # the agent must be asked for fast, successful lookups
    follows: bool = False  # … and to follow children
    stuck_after: str | None = None  # nothing here takes as long as the caller's
    reports: int | None = None  # it would take too long: the program is ended after so many


#: Faults that need a plan of their own. None of them takes longer than 9 s.
PLANS = {
    "healthy": Plan(gets_stuck=False, shows_all=True),
    "tcp": Plan(gets_stuck=False, shows_all=True),
    "nxdomain": Plan(gets_stuck=False),
    "refused": Plan(gets_stuck=False),
    "unreachable": Plan(gets_stuck=False),
    "servfail": Plan(gets_stuck=False),
    "local_firewall": Plan(gets_stuck=False),
    "no_nameserver": Plan(gets_stuck=False),
    "one_reply_lost": Plan("timeout:2 attempts:1"),  # glibc waits three times
    "late_reply": Plan("timeout:4 attempts:2"),  # the answer to the first question comes in the second round
    "connect_after_dns": Plan(shows_all=True),
    "ipv6_first_blackholed": Plan(shows_all=True),
    "tls_stall": Plan(shows_all=True),
    "tcp53_blocked": Plan(reports=3),
    "tcp53_silent": Plan(reports=2),
    "fd_exhausted": Plan(gets_stuck=False),
    "gethostbyname_serialized": Plan(reports=4),
    "fork_lock_inherited": Plan("timeout:2 attempts:1", follows=True),
    "hosts_file_huge": Plan(stuck_after="50ms"),
    "nscd_stall": Plan(reports=2),
    "threadpool_starved": Plan("timeout:2 attempts:1"),
    "resolved_ipc_stall": Plan(reports=2),
    "avahi_stall": Plan(reports=2),
    "resolved_dnssec": Plan(gets_stuck=False),
}


def plan_for(fault: Fault) -> Plan:
    """The plan of this fault."""
    return PLANS.get(fault.name, Plan())


class AgentEndedError(Exception):
    """The agent ended before it was ready; it has already said why on stderr."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the agent ended with code {code}")
        self.code = code


class Stage:
    """A context manager: everything is started inside, nothing is left behind."""

    def __init__(self, fault: Fault, stuck_after: str) -> None:
        self._fault = fault
        self._plan = plan_for(fault)
        self._stuck_after = stuck_after
        self._cleanup = contextlib.ExitStack()
        self.program: subprocess.Popen[str]
        self.agent: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as cleanup:
            sandbox = cleanup.enter_context(Sandbox())
            cleanup.enter_context(self._fault.setup(sandbox, options=self._plan.resolver_options))
            self._go_file = sandbox.new_file("go")
            self._agent_ready_file = sandbox.new_file("agent-ready")
            self.program = self._start_program(sandbox)
            cleanup.callback(end, self.program)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    def _start_program(self, sandbox: Sandbox) -> subprocess.Popen[str]:
        """The target, ready and waiting for its go; Ctrl-C reaches only us."""
        ready_file = sandbox.new_file("ready")
        connect = ["--connect", str(self._fault.connect_port)] if self._fault.connect_port else []
        connect += ["--tls"] if self._fault.uses_tls else []
        files = ("--ready-file", str(ready_file), "--go-file", str(self._go_file))
        module, *words = self._fault.program
        options = ["--name", self._fault.name_asked, *connect, *files]
        argv = (
            [*self._fault.command, *options] if self._fault.command else bare_python(module, *words, *options)
        )
        environment = plain_environment() | dict(self._fault.environment)
        pipe = subprocess.PIPE
        return sandbox.popen(
            argv, ready_file=ready_file, stdout=pipe, text=True, start_new_session=True, env=environment
        )

    @property
    def resolv_conf(self) -> str:
        """What /etc/resolv.conf says in there."""
        return self._fault.resolv_conf(self._plan.resolver_options)

    @property
    def agent_options(self) -> list[str]:
        """What a user would type behind `ebpfdns`."""
        options = [
            "attach",
            "--pid",
            str(self.program.pid),
            "--stuck-after",
            self._plan.stuck_after or self._stuck_after,
        ]
        options += ["--all"] if self._plan.shows_all else []
        return [*options, "--children"] if self._plan.follows else options

    def start_agent(self) -> float:
        """Attach the agent; seconds until every probe was live."""
        started = time.monotonic()
        argv = [*AGENT, *self.agent_options, "--ready-file", str(self._agent_ready_file)]
        argv += ["--log-level", "warning"]
        pipe = subprocess.PIPE
        self.agent = subprocess.Popen(argv, stdout=pipe, env=_agent_environment(), start_new_session=True)
        self._cleanup.callback(_finish, self.agent)
        try:
            wait_for_file(self._agent_ready_file, self.agent)
        except EbpfdnsError as error:
            if self.agent.poll() is None:
                raise
            raise AgentEndedError(self.agent.returncode) from error
        return time.monotonic() - started

    def release(self) -> None:
        """Let the program look its name up."""
        self._go_file.touch()

    @property
    def reports(self) -> int | None:
        """After how many reports of a stuck lookup the program is to be ended."""
        return self._plan.reports

    def stop_program(self) -> None:
        """End the program while it waits."""
        self.program.kill()

    def agent_lines(self) -> Iterator[str]:
        """Each line of the agent as it comes, until it ends by itself because its target has."""
        assert self.agent.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        give_up_at = time.monotonic() + END_DEADLINE_S
        output_fd = self.agent.stdout.fileno()
        poller = select.poll()
        poller.register(output_fd, select.POLLIN)
        unfinished = b""
        while True:
            if not poller.poll(max(0.0, give_up_at - time.monotonic()) * 1000):
                raise EbpfdnsError(f"the agent did not end within {END_DEADLINE_S:.0f} s")
            chunk = os.read(output_fd, READ_BYTES)
            if not chunk:
                return
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            yield from (line.decode() for line in lines)

    def program_result(self) -> dict[str, Any] | None:
        """What the program printed of its lookup; None when it was stopped before it could."""
        text = self.program.communicate()[0]
        return json.loads(text) if text else None


def _agent_environment() -> dict[str, str]:
    """Ours, without settings of `attach`, and so that the agent is the very same code as this."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OWN_SETTINGS)}
    paths = [str(PACKAGE_PARENT), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _finish(agent: subprocess.Popen[bytes]) -> None:
    """Ask the agent to end, if it has not; make it end when it does not."""
    agent.terminate()
    try:
        agent.wait(TERMINATE_DEADLINE_S)
    except subprocess.TimeoutExpired:
        agent.kill()
    finally:
        end(agent)
