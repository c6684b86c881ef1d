"""What this host and the agent's own rights are: kernel, capabilities, namespaces, bcc.

Owns: /proc/self, /sys and uname, for what they say about the host as a whole.
Must not know: what is good or bad about it (`commands/host_checks.py`), or any target. bcc is looked for, but
not imported: that takes 0.2 s, and may fail in ways worth a message.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ebpfdns.observe import proc_files
from ebpfdns.observe.cgroups import cgroup2_mount, mount_points

INITIAL_PIDNS_INODE = 0xEFFF_FFFC
INITIAL_CGROUPNS_INODE = 0xEFFF_FFFB
WHOLE_UID_RANGE = ["0", "0", "4294967295"]

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *(
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
    ),
    *(
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
    ),
    *(
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
    ),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)


@dataclass(frozen=True, slots=True)
class Bcc:
    """The Python package `bcc`. is_tracer: it is the right one, not another of that name on PyPI."""

    directory: str
    version: str | None
    is_tracer: bool


@dataclass(frozen=True, slots=True)
class Host:
    """Everything `doctor` and `attach` want to know before they load anything. None: cannot be told."""

    kernel_release: str
    kernel: tuple[int, int]
    machine: str
    has_btf: bool
    lockdown: str | None
    tracefs: str | None
    can_mount_tracefs: bool
    has_uprobes: bool
    capabilities: frozenset[str]
    in_user_namespace: bool
    bcc: Bcc | None
    pidns_device: int | None
    pidns_inode: int | None
    cgroupns_inode: int | None
    cgroup2: str | None
    cgroup2_top: str | None = None
    is_proc_ours: bool = True

    @property
    def in_initial_pidns(self) -> bool | None:
        """Whether the agent's pids are the kernel's own."""
        return None if self.pidns_inode is None else self.pidns_inode == INITIAL_PIDNS_INODE

    @property
    def sees_all_cgroups(self) -> bool | None:
        """Whether the agent sees the whole cgroup tree: outside of containers, or by a mount given to it."""
        if self.cgroupns_inode is None:
            return None
        return self.cgroupns_inode == INITIAL_CGROUPNS_INODE or ".." in (self.cgroup2_top or "")


def read_host() -> Host:
    """Look around; needs no rights, and raises nothing."""
    name = os.uname()
    pidns, cgroupns = _stat("/proc/self/ns/pid"), _stat("/proc/self/ns/cgroup")
    capabilities = decode_capabilities(_status_field("CapEff") or "0")
    cgroup2 = cgroup2_mount()
    return Host(
        kernel_release=name.release,
        kernel=kernel_version(name.release),
        machine=name.machine,
        has_btf=Path("/sys/kernel/btf/vmlinux").exists(),
        lockdown=parse_lockdown(_read("/sys/kernel/security/lockdown")),
        tracefs=find_tracefs(),
        can_mount_tracefs="SYS_ADMIN" in capabilities and "\ttracefs\n" in _read("/proc/filesystems"),
        has_uprobes=Path("/sys/bus/event_source/devices/uprobe/type").exists(),
        capabilities=capabilities,
        in_user_namespace=_read("/proc/self/uid_map").split() != WHOLE_UID_RANGE,
        bcc=find_bcc(),
        pidns_device=pidns and pidns.st_dev,
        pidns_inode=pidns and pidns.st_ino,
        cgroupns_inode=cgroupns and cgroupns.st_ino,
        cgroup2=None if cgroup2 is None else str(cgroup2.place),
        cgroup2_top=None if cgroup2 is None else cgroup2.top,
        is_proc_ours=proc_files.link("/proc/self") == str(os.getpid()),
    )


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of `6.1.0-13-cloud-amd64`; (0, 0) of something else."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def parse_lockdown(text: str) -> str | None:
    """The chosen word of `none [integrity] confidentiality`; None when there is none."""
    match = re.search(r"\[(\w+)\]", text)
    return match[1] if match else None


def decode_capabilities(mask_hex: str) -> frozenset[str]:
    """The names (without CAP_) of the bits in this mask; bits newer than this list have none."""
    mask = int(mask_hex, 16)
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def find_tracefs() -> str | None:
    """Where tracefs is mounted, on its own or inside debugfs; None when it is not."""
    text = _read("/proc/self/mountinfo")
    inside_debugfs = [f"{mount}/tracing" for mount in mount_points(text, "debugfs")]
    places = [*mount_points(text, "tracefs"), *(place for place in inside_debugfs if _stat(place))]
    return places[0] if places else None


def find_bcc() -> Bcc | None:
    """Find the package that `import bcc` would import; None when there is none."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or not spec.submodule_search_locations:
        return None
    directory = Path(next(iter(spec.submodule_search_locations)))
    version = re.search(r"""__version__ = ['"]([^'"]+)""", _read(str(directory / "version.py")))
    return Bcc(str(directory), version[1] if version else None, (directory / "libbcc.py").exists())


def _status_field(name: str) -> str | None:
    """One field of /proc/self/status."""
    match = re.search(rf"^{name}:\s*(.*)$", _read("/proc/self/status"), re.MULTILINE)
    return match[1] if match else None


def _stat(path: str) -> os.stat_result | None:
    """What stat says; None when it is refused, or the kernel has no such thing."""
    try:
        return Path(path).stat()
    except OSError:
        return None


def _read(path: str) -> str:
    """The text of a file; nothing when it is not there or refused."""
    try:
        return Path(path).read_bytes().decode("utf-8", "backslashreplace")
    except OSError:
        return ""
