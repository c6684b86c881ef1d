"""The command of `run`: a child that waits to be let go, and all that passes between it and its caller.

Owns: fork and exec, the signals that are meant for it, job control, its end. Must not know: what is traced.

The child is in our own process group and has our own streams, so a terminal's Ctrl-C, Ctrl-Z and resizing
reach it as they would without us. A signal that somebody sends to us is sent on; one that the terminal sent
has reached it already. When the terminal stops it, we stop too, so that the shell has its prompt again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import struct
from typing import TYPE_CHECKING, NoReturn, Self

from ebpfdns.errors import CommandNotFoundError, CommandRefusedError
from ebpfdns.observe import exec_gate
from ebpfdns.observe.signal_queue import SignalQueue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ebpfdns.observe.users import User

#: All that a program may be told by others; what comes of its own doing (SIGSEGV …) comes to it directly.
SENT_ON = frozenset(
    {
        *(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGWINCH, signal.SIGALRM),
    }
)
STOPS = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
#: Python ignores these from its start on; a program does not expect that.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
GO = b"!"
OWN_MOUNTS, NO_MOUNTS = b"+", b"-"
FAILURE = struct.Struct("=i")
NOT_FOUND = frozenset({errno.ENOENT, errno.ENOTDIR})
EXIT_BY_SIGNAL = 128


class Command:
    """A context manager: the child is there from the beginning; it runs its program after `release`."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[bytes, bytes],
        path: str,
        user: User | None,
        *,
        wants_own_mounts: bool,
    ) -> None:
        """`path`: the program's file; `argv`: what it is told it was called as."""
        self._wants_own_mounts = wants_own_mounts
        self.argv = list(argv)
        self._path = path
        _fill_closed_streams()
        self._status: int | None = None
        self._is_stopped = False
        self._go_read, self._go_write = os.pipe2(os.O_CLOEXEC)
        self._failure_read, failure_write = os.pipe2(os.O_CLOEXEC)
        self.signals = SignalQueue({*SENT_ON, signal.SIGCHLD})
        self.pid = os.fork()
        if self.pid == 0:
            self._become_program(environment, failure_write, user)
        os.close(self._go_read)
        os.close(failure_write)
        self._pidfd = os.pidfd_open(self.pid)

    # In the child.

    def _become_program(
        self, environment: Mapping[bytes, bytes], failure_write: int, user: User | None
    ) -> NoReturn:
        """Nothing of ours is left but the process itself."""
        try:
            for number in IGNORED_BY_PYTHON:
                signal.signal(number, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            self.signals.restore()
            os.close(self._go_write)
            has_own_mounts = self._wants_own_mounts and exec_gate.leave_mount_namespace()
            os.write(failure_write, OWN_MOUNTS if has_own_mounts else NO_MOUNTS)
            if os.read(self._go_read, 1) != GO:
                os._exit(1)  # our parent has given up, or is gone
            if user is not None:
                user.become()
            _exec(self._path, self.argv, environment)
        except OSError as error:
            os.write(failure_write, FAILURE.pack(error.errno or errno.EIO))
        finally:
            os._exit(CommandRefusedError.exit_code)

    # In us.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """A command that was never let go ends; one that runs is waited for, whatever has happened to us."""
        if self._go_write >= 0:
            os.close(self._go_write)
        self.wait()
        self.signals.close()
        os.close(self._pidfd)
        os.close(self._failure_read)

    def has_own_mounts(self) -> bool:
        """Whether it has a mount namespace of its own; once, before `release`."""
        return os.read(self._failure_read, 1) == OWN_MOUNTS

    def release(self) -> None:
        """Let it run its program."""
        with contextlib.suppress(BrokenPipeError):  # it was killed while it waited
            os.write(self._go_write, GO)
        os.close(self._go_write)
        self._go_write = -1

    def has_ended(self) -> bool:
        """Whether it has; its number is ours until `wait`."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def attend(self) -> None:
        """Send on what has come for it, and stop when it was stopped."""
        for sent in self.signals.take():
            if sent.number == signal.SIGCHLD:
                self._look_for_stop()
            elif sent.number == signal.SIGTSTP and self._is_stopped:
                self._stop_too()
            elif not sent.is_kernels:
                self._send(sent.number)

    def wait(self) -> int:
        """Its exit code as a shell has it, once it has ended; signals are sent on until then."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.register(self.signals.fd, select.POLLIN)
        while self._status is None:
            if self.has_ended():
                _, self._status = os.waitpid(self.pid, 0)
                break
            poller.poll()
            self.attend()
        code = os.waitstatus_to_exitcode(self._status)
        return code if code >= 0 else EXIT_BY_SIGNAL - code

    def failure(self) -> CommandNotFoundError | CommandRefusedError | None:
        """Why its program could not be run, after its end; None when it was."""
        raw = os.read(self._failure_read, FAILURE.size)
        return refusal(self.argv[0], FAILURE.unpack(raw)[0]) if len(raw) == FAILURE.size else None

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
        if number == signal.SIGCONT:
            self._is_stopped = False

    def _look_for_stop(self) -> None:
        with contextlib.suppress(ChildProcessError):
            found = os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOHANG)
            if found is None or found.si_pid != self.pid:
                return
            self._is_stopped = True
            if found.si_status in STOPS:
                self._stop_too()

    def _stop_too(self) -> None:
        """So that the shell has its prompt; without a terminal nobody would ever let us go on."""
        try:
            os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
        except OSError:
            return
        os.kill(os.getpid(), signal.SIGSTOP)
        # Here somebody has continued us: alone, perhaps, or with the whole group.
        self._send(signal.SIGCONT)


def _fill_closed_streams() -> None:
    """A file of ours with such a number would get what libraries print. The command has them closed still."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def refusal(name: str, code: int) -> CommandNotFoundError | CommandRefusedError:
    """Why a program cannot be run, in words."""
    if code in NOT_FOUND:
        return CommandNotFoundError(
            f"there is no command {name}", remedy="write its whole path, as `command -v` in a shell tells it"
        )
    return CommandRefusedError(
        f"cannot run {name}: {os.strerror(code)}",
        remedy=f"ls -l {name}; is it a program, and may you run it?",
    )


def _exec(path: str, argv: list[str], environment: Mapping[bytes, bytes]) -> NoReturn:
    """Run a program; a text without `#!` is the shell's, as for env and nice."""
    try:
        os.execve(path, argv, environment)  # noqa: S606 - a list, never a shell
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    os.execve("/bin/sh", ["/bin/sh", path, *argv[1:]], environment)  # noqa: S606 - as execvp(3) does
