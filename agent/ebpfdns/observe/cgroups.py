"""Where a process stands in the cgroup tree, and which container that position tells of.

Owns: the text of /proc/PID/cgroup and the mount point of cgroup v2.
Must not know: what is attached to a cgroup, or anything else about the process.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

#: 64 hexadecimal digits, as every container runtime names its containers, with what stands in front of them.
_CONTAINER = re.compile(r"(?:([a-z-]+)[-:/])?([0-9a-f]{64})(?:\.scope|\.slice)?(?=$|/)")
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?=\.slice|[/:]|$)")
_ESCAPE = re.compile(r"\\([0-7]{3})")
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
    """A directory of the cgroup v2 tree that holds a process. `is_root`: the whole mount, not its own."""

    path: Path
    is_root: bool


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """Where cgroup v2 is mounted, and which cgroup is at its top, as the agent's cgroup namespace names it.

    "/" is the agent's own; the host's tree, given to a container, has "/..", once for each level above it.
    """

    place: Path
    top: str


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


def cgroup2_mount() -> CgroupMount | None:
    """Where the agent sees cgroup v2 mounted; None when it is not."""
    try:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    mounts = [CgroupMount(Path(place), top) for top, place in _mounts(text, "cgroup2")]
    return next(iter(mounts), None)


def mount_points(mountinfo_text: str, filesystem: str) -> list[str]:
    """Where a mountinfo has this kind of file system, in the order of mounting."""
    return [place for _, place in _mounts(mountinfo_text, filesystem)]


def controller_mounts(mountinfo_text: str, controller: str) -> list[tuple[str, str]]:
    """(place, top) of the mounts of a v1 controller, or of cgroup v2 for "", in the order of mounting."""
    if not controller:
        return [(place, top) for top, place in _mounts(mountinfo_text, "cgroup2")]
    found = []
    for line in mountinfo_text.splitlines():
        where, separator, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        if separator and kind == "cgroup" and controller in options.split(" ")[-1].split(","):
            top, place = where.split(" ")[3:5]
            found.append((_unescaped(place), _unescaped(top)))
    return found


def cgroup2_directory(mount: CgroupMount, cgroup2_path: str | None) -> CgroupDirectory | None:
    """The directory of a cgroup v2 path (`Process.cgroup2_path`); None when it is not below this mount.

    Where its directory cannot be told it is the whole mount, and says so.
    """
    whole = CgroupDirectory(mount.place, is_root=True)
    if cgroup2_path is None:
        return whole
    names = _below(mount.top, cgroup2_path)
    if names is None:
        return None
    found = [path for path in mount.place.glob("/".join(names)) if path.is_dir()] if names else []
    return CgroupDirectory(found[0], is_root=False) if len(found) == 1 else whole


def _mounts(mountinfo_text: str, filesystem: str) -> list[tuple[str, str]]:
    """(top, place) of each mount of this kind of file system, in the order of mounting."""
    found = []
    for line in mountinfo_text.splitlines():
        where, separator, kind = line.partition(" - ")
        if separator and kind.split(" ", 1)[0] == filesystem:
            top, place = where.split(" ")[3:5]
            found.append((_unescaped(top), _unescaped(place)))
    return found


def _unescaped(text: str) -> str:
    r"""The kernel writes a space in a path as \040."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _below(top: str, path: str) -> list[str] | None:
    """The names, as patterns, that lead from the cgroup `top` down to `path`; None when they do not.

    Both are named from the agent's own cgroup. A `top` that is further up has levels in between that nobody
    names inside of a container: each is a "*".
    """
    top_ups, top_names = _split(top)
    ups, names = _split(path)
    if ups < top_ups and not top_names:
        return ["*"] * (top_ups - ups) + [glob.escape(name) for name in names]
    if ups != top_ups or names[: len(top_names)] != top_names:
        return None
    return [glob.escape(name) for name in names[len(top_names) :]]


def _split(path: str) -> tuple[int, list[str]]:
    """How many levels up a path begins, and the names from there."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return parts.count(".."), [part for part in parts if part != ".."]
