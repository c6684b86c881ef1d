"""Records the stories of this folder again: `sudo .venv/bin/python tests/replay/record.py [STORY …]`.

Owns: which stories there are, and that a recording says nothing of the machine it was made on.
Must not know: what the agent concludes. Needed when the shape of a recording changes, or a probe sees more.

A story is a session of the real agent: NAME.rec is what it was fed, NAME.jsonl what it printed. The program
runs as /opt/lookup on a host called `ci-7`; names and addresses are those reserved for documentation.
"""

from __future__ import annotations

import os
import resource
import runpy
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "agent"), str(HERE.parent / "kernel")]

from agent import Agent  # noqa: E402 - found by the line above, as all of these
from go_faults import GO_FAULTS, GoFault  # noqa: E402
from gotarget import gotarget  # noqa: E402
from node import STARVED  # noqa: E402
from packages import daemons  # noqa: E402
from program import Program  # noqa: E402

from ebpfdns.lab import kernel_calls, real_daemons  # noqa: E402
from ebpfdns.lab.faults import FAULTS, late_reply  # noqa: E402
from ebpfdns.lab.namespace import Sandbox, plain_environment  # noqa: E402

WORKLOADS = HERE.parent / "workloads" / "build.py"
CLONE_NEWUTS = 0x04000000
HOST = "ci-7"


class Story(NamedTuple):
    """What is recorded: a fault, the program that meets it, and the agent's options."""

    fault: str
    libc: str = "glibc"
    words: tuple[str, ...] = ()
    options: str = "timeout:2 attempts:1"  # of resolv.conf
    agent_words: tuple[str, ...] = ("--all",)
    then_conf: str = ""  # the text of resolv.conf once the first lookup has ended
    stops_at: str = ""  # a kind of line, or a cause, after whose third its program is killed
    workload: str = "lookup"  # which of ours
    program: tuple[str, ...] = ()  # instead of ours
    name: str = "www.lab.test"
    stuck_after: str = "500ms"
    descriptors: int | None = None  # its limit
    is_stuck_first: bool = False  # the agent comes when it waits already


STORIES = {
    "healthy": Story("healthy"),
    "silent": Story("silent"),
    "silent-musl": Story("silent", "musl"),
    "silent-wire": Story("silent", "musl-stripped"),
    "silent-before": Story("silent", options="timeout:2 attempts:3", is_stuck_first=True),
    "refused": Story("refused"),
    "servfail": Story("servfail", "musl"),
    "unreachable": Story("unreachable"),
    "nxdomain": Story("nxdomain"),
    "tcp": Story("tcp"),
    "first_ns_dead": Story("first_ns_dead"),
    "reply_ignored": Story("reply_ignored"),
    "search_amplification": Story("search_amplification"),
    "no_nameserver": Story("no_nameserver"),
    "stale_resolv_conf": Story(
        "stale_resolv_conf",
        words=("--count", "2", "--repeat-delay-us", "700000"),
        then_conf="nameserver 192.0.2.54\n",
    ),
    "bypass": Story("bypass", words=("--server", "192.0.2.54", "--connected"), workload="wire"),
    "edns_dropped": Story(
        "edns_dropped",
        words=("--connected", "--count", "2", "--edns-later", "--timeout-ms", "1500"),
        workload="wire",
    ),
    "fragments_dropped": Story(
        "fragments_dropped",
        words=("--count", "2", "--edns-later", "--timeout-ms", "1500"),
        workload="wire",
    ),
    "local_firewall": Story("local_firewall"),
    "one_reply_lost": Story("one_reply_lost", options="timeout:1 attempts:1"),
    "late_reply": Story("late_reply", options="timeout:1 attempts:2"),
    "reply_not_read": Story("healthy", workload="eventloop", words=("--away", "lock", "--away-ms", "2300")),
    "target_stopped": Story("healthy", workload="eventloop", words=("--away", "stop", "--away-ms", "1300")),
    "threads": Story(
        "silent",
        words=("--threads", "3", "--unique", "--api", "gethostbyname"),
        options="timeout:1 attempts:1",
    ),
    "connect_after_dns": Story("connect_after_dns", words=("--connect", "443"), stops_at="connect_stuck"),
    "child_process": Story(
        "silent", words=("--threads", "0", "--fork-child"), options="timeout:3 attempts:1", agent_words=()
    ),
    "tcp53_blocked": Story("tcp53_blocked", stops_at="lookup_stuck"),
    "tcp53_silent": Story("tcp53_silent", stops_at="lookup_stuck"),
    "tls_stall": Story("tls_stall", words=("--connect", "443", "--hello"), stops_at="connect_stuck"),
    "ipv6_first_blackholed": Story(
        "ipv6_first_blackholed", words=("--connect", "443"), stops_at="connect_stuck"
    ),
    "fork_lock_inherited": Story(
        "silent",
        words=("--threads", "1", "--api", "gethostbyname", "--fork-child"),
        agent_words=("--all", "--children"),
        stops_at="fork_lock_inherited",
    ),
    "fd_exhausted": Story("fd_exhausted", descriptors=3),
    "hosts_file_huge": Story("hosts_file_huge", stuck_after="40ms"),
    "nsswitch_order_stall": Story("nsswitch_order_stall"),
    "threadpool_starved": Story(
        "silent", options="timeout:1 attempts:1", program=("node", "-e", STARVED, "--"), name=""
    ),
    "nscd_stall": Story("nscd_stall", stops_at="lookup_stuck"),
    "resolved_ipc_stall": Story("resolved_ipc_stall", stops_at="lookup_stuck"),
    "resolved_stub_silent": Story("resolved_stub_silent"),
    "resolved_dot_blocked": Story("resolved_dot_blocked", options="timeout:3 attempts:1"),
    "resolved_dot_stalled": Story("resolved_dot_stalled", options="timeout:3 attempts:1"),
    "resolved_dot_silent": Story("resolved_dot_silent", options="timeout:3 attempts:1"),
    "resolved_degraded": Story("resolved_degraded", options="timeout:3 attempts:1"),
    "resolved_upstream_silent": Story("resolved_upstream_silent"),
    "resolved_dnssec": Story("resolved_dnssec", agent_words=()),
    "forwarder_upstream_silent": Story("forwarder_upstream_silent"),
    "avahi_stall": Story("avahi_stall", name="printer.local", stops_at="lookup_stuck"),
    "mdns_timeout": Story("mdns_timeout", name="printer.local"),
}


#: What goes wrong in Go programs only, by the names of `go_faults`.
OF_GO = {
    "go-coalesced_wait": "one name, ten goroutines",
    "go-cgo_thread_limit": "more names than threads",
    "go-reply_not_read": "a loop on the only processor",
    "go-stale_resolv_conf": "a resolv.conf that has just changed",
    "go-connect_after_dns": "a dial without a deadline",
}


def main(names: list[str]) -> None:
    """Record these stories, or all."""
    os.environ |= daemons()
    kernel_calls.unshare(CLONE_NEWUTS | kernel_calls.CLONE_NEWNS)
    put_daemons()
    socket.sethostname(HOST)
    programs = runpy.run_path(str(WORKLOADS))["build"]()
    for name in names or (*STORIES, *OF_GO):
        if name in OF_GO:
            record_go(name, GO_FAULTS[OF_GO[name]])
        else:
            record(name, STORIES[name], programs)
        sys.stdout.write(f"{name}\n")


def put_daemons() -> None:
    """Real resolvers at the same path on every machine, in this process's own mounts."""
    kernel_calls.mount("none", "/", flags=kernel_calls.MS_REC | kernel_calls.MS_PRIVATE)
    found = [path for path in map(real_daemons.program, real_daemons.PACKAGES) if path is not None]
    texts = {path: Path(path).read_bytes() for path in found}
    kernel_calls.mount("tmpfs", "/mnt", "tmpfs", options="mode=0755")
    for path, text in texts.items():
        place = Path("/mnt") / Path(path).name
        place.write_bytes(text)
        place.chmod(0o755)
    os.environ["PATH"] = f"/mnt:{os.environ['PATH']}"


def record(name: str, story: Story, programs: dict[str, Path]) -> None:
    """One session: its recording and its lines."""
    fault = late_reply(1700) if story.fault == "late_reply" else FAULTS[story.fault]
    recording = HERE / f"{name}.rec"
    with Sandbox() as sandbox, fault.setup(sandbox, options=story.options, log=True) as running:
        binary = neutral(sandbox, programs[f"{story.workload}-{story.libc}"], story.workload)
        ours = [binary, "--name", story.name, *story.words]
        environment = plain_environment() | dict(fault.environment)
        program = Program(sandbox, story.program or ours, env=environment)
        if story.descriptors is not None:
            resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (story.descriptors, 1024))
        words = ["--pid", program.pid, "--stuck-after", story.stuck_after, "--record", recording]
        words += story.agent_words
        if story.is_stuck_first:
            program.go()
            while not running.queries():
                time.sleep(0.01)
        with Agent("attach", *words) as agent:
            program.go()
            if story.then_conf:
                agent.wait_for(lambda line: line["event"] == "lookup")
                sandbox.write_resolv_conf(story.then_conf)
            if story.stops_at:
                told = agent.wait_for(lambda line: story.stops_at in {line["event"], cause_of(line)}, count=3)
                os.kill(told[-1]["process"]["pid"], signal.SIGKILL)
            agent.finish()
    recording.chmod(0o644)
    (HERE / f"{name}.jsonl").write_bytes(agent.text)


def record_go(name: str, made: GoFault) -> None:
    """One session with the Go program."""
    recording = HERE / f"{name}.rec"
    with Sandbox() as sandbox, made.fault.setup(sandbox, options=made.options):
        binary = neutral(sandbox, gotarget(made.needs), "lookup")
        environment = plain_environment() | dict(made.environment)
        program = Program(sandbox, [binary, "--name", "www.lab.test", *made.words], env=environment)
        words = ["--pid", program.pid, "--stuck-after", "300ms", "--record", recording, *made.agent_words]
        with Agent("attach", *words) as agent:
            program.go()
            if made.reports is not None:
                agent.wait_for(lambda line: cause_of(line) == made.cause, made.reports)
                program.process.kill()
            agent.finish()
    recording.chmod(0o644)
    (HERE / f"{name}.jsonl").write_bytes(agent.text)


def cause_of(line: dict[str, Any]) -> str | None:
    """The id of its cause."""
    found: str | None = line.get("cause", {}).get("id")
    return found


def neutral(sandbox: Sandbox, program: Path, name: str) -> str:
    """A copy of the program with the same path on every machine, in the sandbox's own memory."""
    assert sandbox.popen(["mount", "-t", "tmpfs", "none", "/opt"]).wait() == 0
    shutil.copy(program, sandbox.root / "opt" / name)
    return f"/opt/{name}"


if __name__ == "__main__":
    main(sys.argv[1:])
