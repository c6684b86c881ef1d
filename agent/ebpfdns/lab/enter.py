"""Enter a sandbox and become a command there: `HOLDER_PID PARENT_PID CMD [ARG …]`.

Owns: the order of the steps between fork and exec of a command in a sandbox.
Must not know: anything of the command. Standard library only: its interpreter runs without `site`.
"""

# pathlib would double the start time of this interpreter.
# ruff: noqa: PTH109

from __future__ import annotations

import os
import sys

from ebpfdns.lab import kernel_calls


def main() -> None:
    """Die with the parent, enter both namespaces, come back to the working folder, exec."""
    holder_pid, parent_pid, *command = sys.argv[1:]
    kernel_calls.die_with_parent(int(parent_pid))
    working_folder = os.getcwd()
    for name, kind in (("net", kernel_calls.CLONE_NEWNET), ("mnt", kernel_calls.CLONE_NEWNS)):
        namespace_fd = os.open(f"/proc/{holder_pid}/ns/{name}", os.O_RDONLY)
        kernel_calls.setns(namespace_fd, kind)
        os.close(namespace_fd)
    os.chdir(working_folder)
    try:
        os.execvp(command[0], command)  # noqa: S606 - a list, never a shell
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
