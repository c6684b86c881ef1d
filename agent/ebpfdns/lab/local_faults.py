"""Faults inside the program, and of the local daemons and files that a lookup passes before DNS.

Owns: these entries of the table, and the files they need. Must not know: how a fault is set up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.lab import topology
from ebpfdns.lab.fault import Fault, RuleFields, ServerPlan, StuckDaemon
from ebpfdns.lab.holder import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from ebpfdns.lab.namespace import Sandbox

HOSTS_LINES = 3_000_000
STUB = "127.0.0.53"
NSCD = "/run/nscd/socket"
RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
AVAHI = "/run/avahi-daemon/socket"
AVAHI_GIVES_UP = ("--answer", "-15 Timeout reached\n", "--delay-ms", "5000")
ON_LINK = "printer.local"
MDNS_SOURCES = "files mdns4_minimal [NOTFOUND=return] dns"
MODULES = f"{SCRATCH}/modules"
MODULE_SOURCE = Path(__file__).with_name("nss_module.c")

_SILENT = (ServerPlan((topology.SERVER_1,), ({"drop": True},)),)
_GOOD: tuple[RuleFields, ...] = ({"answer": [topology.WEB, topology.WEB_V6]},)
_WORKS = (ServerPlan((topology.SERVER_1,), _GOOD),)


def nsswitch(hosts: str) -> str:
    """The text of an nsswitch.conf with this line for hosts."""
    return f"passwd: files\ngroup: files\nhosts: {hosts}\nnetworks: files\n"


def write_huge_hosts(sandbox: Sandbox, count: int = HOSTS_LINES) -> None:
    """A blocklist as people have them."""
    lines = (f"0.0.0.0 tracker-{number}.lab.test\n" for number in range(count))
    (sandbox.root / "etc/hosts").write_text("127.0.0.1 localhost\n" + "".join(lines), encoding="ascii")


def build_slow_module(sandbox: Sandbox) -> None:
    """A name source `slow` before dns: its module sleeps for 4 s, then knows nothing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise HostCannotTraceError(
            "a name source is compiled here, and there is no C compiler", remedy="apt-get install gcc"
        )
    folder = sandbox.root / MODULES.lstrip("/")
    folder.mkdir(exist_ok=True)
    library = folder / "libnss_slow.so.2"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, MODULE_SOURCE], check=True)
    (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch("files slow dns"), encoding="ascii")


def _has_module(library: str) -> bool:
    """Whether libc would find it: where the caller says, or where libraries are."""
    told = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    usual = [folder for top in ("/lib", "/usr/lib") for folder in (top, *Path(top).glob("*-linux-gnu"))]
    return any((Path(folder) / library).exists() for folder in (*told, *usual))


def _source(name: str, hosts: str, package: str) -> Callable[[Sandbox], None]:
    """Have the program ask the name source `name`, in this order; its module is the package's."""

    def write(sandbox: Sandbox) -> None:
        if not _has_module(f"libnss_{name}.so.2"):
            raise HostCannotTraceError(
                f"the name source {name} is not installed here",
                remedy=f"apt-get download {package}; dpkg -x {package}_*.deb DIR; and set LD_LIBRARY_PATH",
            )
        (sandbox.root / "etc/nsswitch.conf").write_text(nsswitch(hosts), encoding="ascii")

    return write


#: Three names at once, of which libuv lets two be looked up.
QUEUED_IN_NODE = """
const fs = require('fs'), dns = require('dns');
const file = (option) => process.argv[process.argv.indexOf(option) + 1];
fs.writeFileSync(file('--ready-file'), '');
const waiting = setInterval(() => {
  if (!fs.existsSync(file('--go-file'))) return;
  clearInterval(waiting);
  const began = Date.now();
  let left = 3;
  const result = (error) => ({ok: false, addresses: [], error: error.code, lookup_ms: Date.now() - began});
  const done = (error) => { if (--left == 0) console.log(JSON.stringify(result(error))); };
  for (let i = 0; i < 3; i++) dns.lookup(`n${i}.${file('--name')}`, done);
}, 5);
"""


def _needs_node(_sandbox: Sandbox) -> None:
    if shutil.which("node") is None:
        raise HostCannotTraceError("there is no node here", remedy="apt-get install nodejs")


LOCAL_FAULTS = (
    Fault(
        name="target_stopped",
        sentence="The program is stopped by a signal before its answer comes, and goes on seconds later.",
        servers=(ServerPlan((topology.SERVER_1,), ({**_GOOD[0], "delay_ms": 600},)),),
        expected_cause="target_stopped",
        program=("rude_target", "--way", "stopped"),
    ),
    Fault(
        name="reply_not_read",
        sentence="An asyncio program asks the server itself, then sleeps; nobody reads the answer.",
        servers=_WORKS,
        expected_cause="reply_not_read",
        program=("asyncio_target", "--away-ms", "4000"),
    ),
    Fault(
        name="threadpool_starved",
        sentence="A program of Node looks three names up at a silent server; its thread pool takes two.",
        servers=_SILENT,
        expected_cause="threadpool_starved",
        on_the_way=("ns_silent",),  # of those that hold the pool
        command=("node", "-e", QUEUED_IN_NODE, "--"),
        prepare=_needs_node,
    ),
    Fault(
        name="gethostbyname_serialized",
        sentence="Two threads call gethostbyname at a silent server; libc lets only one in.",
        servers=_SILENT,
        expected_cause="gethostbyname_serialized",
        on_the_way=("ns_silent",),  # of the lookup that holds the lock
        program=("rude_target", "--way", "two-threads"),
    ),
    Fault(
        name="fork_lock_inherited",
        sentence="A program forks while a thread is in gethostbyname; its child waits for ever.",
        servers=_SILENT,
        expected_cause="fork_lock_inherited",
        on_the_way=("ns_silent",),  # of the lookup that holds the lock
        program=("rude_target", "--way", "fork"),
    ),
    Fault(
        name="fd_exhausted",
        sentence="The program has used up its file descriptors; the lookup can open nothing.",
        servers=_WORKS,
        expected_cause="fd_exhausted",
        program=("rude_target", "--way", "no-descriptors"),
    ),
    Fault(
        name="nscd_stall",
        sentence="The name service cache daemon has a socket, and never takes a connection.",
        servers=(*_WORKS, StuckDaemon(("--unix", NSCD))),
        expected_cause="nscd_stall",
    ),
    Fault(
        name="nsswitch_order_stall",
        sentence="A name source that comes before dns sleeps for 4 s.",
        servers=_WORKS,
        expected_cause="nsswitch_order_stall",
        environment=(("LD_LIBRARY_PATH", MODULES),),
        prepare=build_slow_module,
    ),
    Fault(
        name="resolved_ipc_stall",
        sentence="systemd-resolved has a local socket, and never takes a connection.",
        servers=(*_WORKS, StuckDaemon(("--unix", RESOLVE))),
        expected_cause="resolved_ipc_stall",
        prepare=_source("resolve", "files resolve [!UNAVAIL=return] dns", "libnss-resolve"),
    ),
    Fault(
        name="avahi_stall",
        sentence="The Avahi daemon has a socket, and never takes a connection.",
        servers=(*_WORKS, StuckDaemon(("--unix", AVAHI))),
        expected_cause="avahi_stall",
        name_asked=ON_LINK,
        prepare=_source("mdns4_minimal", MDNS_SOURCES, "libnss-mdns"),
    ),
    Fault(
        name="mdns_timeout",
        sentence="Avahi asks the link for a name that nobody has, and says so after 5 s.",
        servers=(*_WORKS, StuckDaemon(("--unix", AVAHI, "--way", "mute", *AVAHI_GIVES_UP))),
        expected_cause="mdns_timeout",
        name_asked=ON_LINK,
        prepare=_source("mdns4_minimal", MDNS_SOURCES, "libnss-mdns"),
    ),
    Fault(
        name="resolved_stub_silent",
        sentence="127.0.0.53 has a socket that nobody reads.",
        nameservers=(STUB,),
        servers=(StuckDaemon(("--udp", STUB)),),
        expected_cause="resolved_stub_silent",
    ),
    Fault(
        name="hosts_file_huge",
        sentence=f"/etc/hosts has {HOSTS_LINES} lines, and each lookup reads them all.",
        servers=_WORKS,
        expected_cause="hosts_file_huge",
        prepare=write_huge_hosts,
    ),
)
