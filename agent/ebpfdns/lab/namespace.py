"""`Sandbox`: a private network and mount namespace to get DNS wrong in, which leaves nothing behind.

Owns: the holder process, the commands started inside, and waiting until they are ready.
Must not know: DNS or faults. The host's network, /etc and file system are never touched.

Everything started inside is killed when the sandbox is left, and when its owner dies, even by SIGKILL. Use a
sandbox from a thread that outlives it: the kernel ties a child's life to the thread that made it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ebpfdns import netlink
from ebpfdns.errors import EbpfdnsError, HostCannotTraceError
from ebpfdns.lab import topology
from ebpfdns.lab.holder import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
#: Settings of the caller's own environment that would change how names are looked up inside.
RESOLVER_VARIABLES = ("RES_OPTIONS", "LOCALDOMAIN", "HOSTALIASES", "GODEBUG")
READY_DEADLINE_S = 20.0
READY_POLL_MS = 2


class Sandbox:
    """A context manager; inside, /etc/resolv.conf is what you write, and the addresses are `topology`'s."""

    def __init__(self) -> None:
        self._cleanup = contextlib.ExitStack()
        self._file_count = 0
        self.holder_pid = 0
        self.has_ipv6 = Path("/proc/net/if_inet6").exists()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as cleanup:
            self.holder_pid = cleanup.enter_context(_holder())
            self.configure(lambda network: topology.build(network, ipv6=self.has_ipv6))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._cleanup.close()

    @property
    def root(self) -> Path:
        """The file system as seen inside, reachable from anywhere: `sandbox.root / "etc/hosts"`."""
        return Path(f"/proc/{self.holder_pid}/root")

    @property
    def netns_path(self) -> Path:
        """The network namespace, to open and enter."""
        return Path(f"/proc/{self.holder_pid}/ns/net")

    def new_file(self, purpose: str) -> Path:
        """A fresh path (no file yet) in the sandbox's own memory, the same inside and outside."""
        self._file_count += 1
        return self.root / SCRATCH.lstrip("/") / f"{purpose}-{self._file_count}"

    def write_resolv_conf(self, text: str) -> None:
        """Replace /etc/resolv.conf at once: a reader sees the old text or the new one, never half of it."""
        fresh = self.new_file("resolv.conf")
        fresh.write_text(text, encoding="utf-8")
        fresh.rename(self.root / "etc/resolv.conf")

    def configure(self, change: Callable[[netlink.Network], None]) -> None:
        """Let `change` add addresses, routes or links inside."""
        netns_fd = os.open(self.netns_path, os.O_RDONLY)
        try:
            netlink.configure(netns_fd, change)
        finally:
            os.close(netns_fd)

    def popen(
        self,
        argv: Sequence[str | Path],
        *,
        ready_file: Path | None = None,
        **options: Any,  # noqa: ANN401 - subprocess.Popen's own
    ) -> subprocess.Popen[Any]:
        """Start a command inside; the pid is the command's own. Wait for `ready_file`, when given."""
        parent_pid = os.getpid()
        options.setdefault("env", plain_environment())
        entered = bare_python("enter", str(self.holder_pid), str(parent_pid), *map(str, argv))
        process: subprocess.Popen[Any] = subprocess.Popen(entered, **options)
        self._cleanup.callback(end, process)
        if ready_file is not None:
            wait_for_file(ready_file, process)
        return process


def plain_environment() -> dict[str, str]:
    """The caller's, without what would change how names are looked up."""
    return {name: value for name, value in os.environ.items() if name not in RESOLVER_VARIABLES}


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process that may already have ended; close its pipes and reap it."""
    process.kill()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def wait_for_file(path: Path, process: subprocess.Popen[Any], deadline_s: float = READY_DEADLINE_S) -> None:
    """Return as soon as `path` exists; raise when `process` ends before that, or the deadline passes."""
    give_up_at = time.monotonic() + deadline_s
    process_fd = os.pidfd_open(process.pid)
    try:
        poller = select.poll()
        poller.register(process_fd, select.POLLIN)
        while not path.exists():
            has_ended = bool(poller.poll(READY_POLL_MS))
            if has_ended and not path.exists():
                raise EbpfdnsError(f"{_title(process)} ended with code {process.wait()} before it was ready")
            if time.monotonic() > give_up_at:
                raise EbpfdnsError(f"{_title(process)} was not ready within {deadline_s:.0f} s")
    finally:
        os.close(process_fd)


def _title(process: subprocess.Popen[Any]) -> str:
    """The command a person started, without the way into the sandbox."""
    words: list[str] = list(process.args) if isinstance(process.args, list) else [str(process.args)]
    return " ".join(words[words.index(str(os.getpid())) + 1 :] if str(os.getpid()) in words else words)


def bare_python(module: str, *arguments: str) -> list[str]:
    """Argv that runs `main` of a module of this package in the quickest interpreter there is (10 ms)."""
    find = f"import sys; sys.path.append({str(PACKAGE_PARENT)!r})"
    program = f"{find}; from ebpfdns.lab.{module} import main; main()"
    return [sys.executable, "-E", "-s", "-S", "-c", program, *arguments]


@contextlib.contextmanager
def _holder() -> Iterator[int]:
    """Start the process that holds the namespaces; end it, and all that lives in them, afterwards."""
    pipe = subprocess.PIPE
    with subprocess.Popen(bare_python("holder"), stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert holder.stdout is not None  # noqa: S101
        try:
            word, *reason = holder.stdout.readline().split(maxsplit=2) or ["failed", "0", "it ended at once"]
            if word != "ready":
                _refuse(int(reason[0]), reason[-1])
            yield holder.pid
        finally:
            holder.stdin.close()
            holder.wait()


def _refuse(code: int, reason: str) -> None:
    """Explain why there can be no sandbox here."""
    rights = "run it as root (in a container: with CAP_SYS_ADMIN and CAP_NET_ADMIN)"
    remedy = rights if code == errno.EPERM else None
    raise HostCannotTraceError(f"cannot make a private network namespace: {reason.strip()}", remedy=remedy)
