"""Where a process stands in the cgroup tree, and which container that position tells of.

Owns: the text of /proc/PID/cgroup and the mount point of cgroup v2.
Must not know: what is attached to a cgroup, or anything else about the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: 64 hexadecimal digits, as every container runtime names its containers, with what stands in front of them.
_CONTAINER = re.compile(r"(?:([a-z-]+)[-:/])?([0-9a-f]{64})(?:\.scope|\.slice)?(?=$|/)")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=\.slice|[/:]|$)")
_RUNTIMES = {
    "docker": "docker",
    "cri-containerd": "containerd",
    "nerdctl": "containerd",
    "crio": "cri-o",
    "libpod": "podman",
}


@dataclass(frozen=True, slots=True)
class ContainerIdentity:
    """What the cgroup path says about the container, and the pod, that a process runs in."""

    id: str | None
    runtime: str | None
    pod_uid: str | None


@dataclass(frozen=True, slots=True)
class CgroupDirectory:
    """A directory of the cgroup v2 tree. `is_root`: the whole mount, so other processes are in it too."""

    path: Path
    is_root: bool


def unified_path(cgroup_text: str) -> str | None:
    """The cgroup v2 path in the text of a /proc/PID/cgroup; None when it has none."""
    for line in cgroup_text.splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").removesuffix(" (deleted)")
    return None


def container_of(cgroup_text: str) -> ContainerIdentity | None:
    """The container that a /proc/PID/cgroup tells of, v2 line first; None for a process in none."""
    lines = sorted(cgroup_text.splitlines(), key=lambda line: not line.startswith("0::"))
    for path in (line.split(":", 2)[-1] for line in lines):
        containers = list(_CONTAINER.finditer(path))
        pod = _POD.search(path)
        if containers or pod:
            runtime, container_id = containers[-1].groups() if containers else (None, None)
            return ContainerIdentity(
                id=container_id,
                runtime=_RUNTIMES.get(runtime or ""),
                pod_uid=pod.group(1).replace("_", "-") if pod else None,
            )
    return None


def cgroup2_mount() -> Path | None:
    """Where the agent sees cgroup v2 mounted; None when it is not."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    mounts = mount_points(text, "cgroup2")
    return Path(mounts[0]) if mounts else None


def mount_points(mountinfo_text: str, filesystem: str) -> list[str]:
    """Where a mountinfo has this kind of file system, in the order of mounting."""
    found = []
    for line in mountinfo_text.splitlines():
        place, separator, kind = line.partition(" - ")
        if separator and kind.split(" ", 1)[0] == filesystem:
            escaped = place.split(" ")[4]
            found.append(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), escaped))
    return found


def cgroup2_directory(cgroup2_path: str | None) -> CgroupDirectory | None:
    """The directory of a cgroup v2 path (`Process.cgroup2_path`); None when v2 is not mounted.

    A path outside of the agent's own cgroup namespace (`/../x`), or one that is not mounted here, cannot be
    reached: then it is the root, and says so.
    """
    mount = cgroup2_mount()
    if mount is None:
        return None
    parts = [part for part in (cgroup2_path or "/").split("/") if part]
    directory = mount.joinpath(*parts)
    if not parts or ".." in parts or not directory.is_dir():
        return CgroupDirectory(mount, is_root=True)
    return CgroupDirectory(directory, is_root=False)
