"""Another user for a command to run as: who that is, and how a process becomes that user for good.

Owns: the user database, ids and groups, and the variables of the environment that name a user.
Must not know: which command it is for.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ebpfdns.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class User:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    def environment(self, given: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """The same, with what names a user and their home set anew: build caches go to the right place."""
        own = {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell}
        return dict(given) | {os.fsencode(name): os.fsencode(value) for name, value in own.items()}

    def become(self) -> None:
        """From now on this process is that user's."""
        os.setgroups(self.groups)  # read before: initgroups(3) would ask the user database, being traced
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def find(name: str) -> User:
    """The user with this name or number."""
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError) as error:
        raise UsageError(f"there is no user {name} here", remedy="getent passwd") from error
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, entry.pw_shell or "/bin/sh")
