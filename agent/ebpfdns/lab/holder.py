"""The process that holds a sandbox's namespaces open, and ends everything in them.

Owns: the private network and mount namespace, and the private /etc in it.
Must not know: DNS, faults, pyroute2. Standard library only: its interpreter runs without `site`.

Protocol: prints `ready` (or `failed ERRNO TEXT`) on stdout, then waits for the end of stdin. That end comes
when the sandbox is left, and also when its owner is killed. Then every process left in the namespace is
killed, and with the holder the namespaces go: links, addresses, mounts and files. Nothing was ever written
to the host's file system.
"""

# pathlib would double the start time of this interpreter.
# ruff: noqa: PTH101, PTH102, PTH112, PTH114, PTH115, PTH116, PTH123, PTH208, PTH211

from __future__ import annotations

import contextlib
import os
import signal
import sys

from ebpfdns.lab import kernel_calls

#: The private /etc is a tmpfs; the host's entries are links into this bind mount of the real one.
HOST_ETC = "/etc/.host"
#: A scratch folder in the same tmpfs, for ready files, go files and logs.
SCRATCH = "/etc/.lab"
#: Where local daemons have their sockets: private, and empty.
RUN_FOLDERS = ("/run", "/var/run")

OWN_FILES = {
    "resolv.conf": "",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}


def main() -> None:
    """Make the namespaces, say so, hold them until stdin ends, end what is left in them."""
    try:
        kernel_calls.unshare(kernel_calls.CLONE_NEWNET | kernel_calls.CLONE_NEWNS)
        kernel_calls.mount("none", "/", flags=kernel_calls.MS_REC | kernel_calls.MS_PRIVATE)
        _make_private_etc()
        for folder in RUN_FOLDERS:  # no daemon of the host answers in here
            if os.path.isdir(folder) and not os.path.islink(folder):
                kernel_calls.mount("tmpfs", folder, "tmpfs", options="mode=0755")
    except OSError as error:
        sys.stdout.write(f"failed {error.errno} {error}\n")
        sys.exit(1)
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signal_number, signal.SIG_IGN)  # Ctrl-C is for the owner, whose end ends us
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    _kill_everyone_else_here()


def _make_private_etc() -> None:
    """Cover /etc by a tmpfs that shows the host's entries, apart from the resolver's own files."""
    real_etc_fd = os.open("/etc", os.O_PATH | os.O_DIRECTORY)
    kernel_calls.mount("tmpfs", "/etc", "tmpfs", options="mode=0755")
    os.mkdir(HOST_ETC)
    os.mkdir(SCRATCH)
    os.chmod(SCRATCH, 0o1777)  # noqa: S103 - a target may run as any user
    kernel_calls.mount(f"/proc/self/fd/{real_etc_fd}", HOST_ETC, flags=kernel_calls.MS_BIND)
    os.close(real_etc_fd)
    for entry in os.scandir(HOST_ETC):
        if entry.name not in OWN_FILES:
            # A relative link means the same in /etc, not one folder deeper: copy it as it is.
            where = os.readlink(entry.path) if entry.is_symlink() else entry.path
            os.symlink(where, f"/etc/{entry.name}")
    for name, text in OWN_FILES.items():
        with open(f"/etc/{name}", "w", encoding="utf-8") as file:
            file.write(text)


def _kill_everyone_else_here() -> None:
    """Kill each process in this network namespace, until none is left."""
    mine = os.stat("/proc/self/ns/net").st_ino
    found = True
    while found:
        found = False
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            # Gone meanwhile, or a zombie: those have no namespace any more, so the loop comes to an end.
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == mine:
                    os.kill(int(name), signal.SIGKILL)
                    found = True


if __name__ == "__main__":
    main()
