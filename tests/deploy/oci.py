"""Containers as a Kubernetes node would start them, but by runc alone: OCI configurations from a pod spec.

Owns: the translation pod spec → config.json. Must not know: runc (`running`), or what the agent prints.
What the manifest says and what runs here cannot drift: capabilities, mounts, arguments, limits, read-only
root and no_new_privs are read from the manifest. What kubelet and runtime would add (masked paths, /dev, a
private cgroup namespace, the default seccomp profile) is added here in the same way.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ebpfdns.observe.host import read_host

MASKED = ["acpi", "asound", "kcore", "keys", "latency_stats"]
MASKED += ["timer_list", "timer_stats", "sched_debug", "scsi"]
READ_ONLY = ["bus", "fs", "irq", "sys", "sysrq-trigger"]
#: In the default profiles of containerd 1.7, Docker 23.0 and later; the profile at hand may be older.
LET_THROUGH = {"CAP_BPF": "bpf", "CAP_PERFMON": "perf_event_open"}


def mount(destination: str, kind: str, *options: str, source: str | None = None) -> dict[str, Any]:
    """One entry of an OCI mount list."""
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def bind(source: object, destination: str, *, read_only: bool = True) -> dict[str, Any]:
    """A directory or file of this host, as kubelet hands it to the runtime (with the mounts below it)."""
    return mount(destination, "bind", "rbind", "rprivate", "ro" if read_only else "rw", source=str(source))


#: What containerd mounts into every container; /sys/fs/cgroup too, unless the pod brings its own.
USUAL_MOUNTS = [
    mount("/proc", "proc", "nosuid", "noexec", "nodev"),
    mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
    mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),  # noqa: S108
    mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
]


def configuration(root: Path, args: list[str], *, namespaces: dict[str, str | None]) -> dict[str, Any]:
    """A container that may do nothing yet: no capability, read-only root. A namespace of None is new."""
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONDONTWRITEBYTECODE=1"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": list(USUAL_MOUNTS),
        "linux": {
            "namespaces": [
                {"type": kind} | ({"path": path} if path else {}) for kind, path in namespaces.items()
            ],
            "maskedPaths": [*(f"/proc/{name}" for name in MASKED), "/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in READ_ONLY],
        },
    }


def from_pod(
    spec: dict[str, Any],
    container: dict[str, Any],
    *,
    root: Path,
    entry_point: list[str],
    environment: dict[str, str],
    empty_dirs: Path,
    namespaces: dict[str, str | None],
    seccomp: Path,
) -> dict[str, Any]:
    """The OCI configuration of one container of a pod, everything that the manifest can say taken from it."""
    args = [expand(arg, environment) for arg in container["args"]]
    made = configuration(root, entry_point + args, namespaces=namespaces)
    made["process"]["env"] += [f"{name}={value}" for name, value in environment.items()]
    apply_security_context(made, container["securityContext"], seccomp)
    apply_limits(made, container["resources"]["limits"])
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for wanted in container["volumeMounts"]:
        volume = volumes[wanted["name"]]
        if "hostPath" in volume:
            source = Path(volume["hostPath"]["path"])
        else:
            source = empty_dirs / wanted["name"]
            source.mkdir(parents=True, exist_ok=True)
            source.chmod(0o777)  # as kubelet makes an emptyDir
        made["mounts"].append(bind(source, wanted["mountPath"], read_only=wanted.get("readOnly", False)))
    return made


def expand(text: str, environment: dict[str, str]) -> str:
    """Replace $(NAME) as kubelet does."""
    return re.sub(r"\$\((\w+)\)", lambda match: environment[match[1]], text)


def apply_security_context(made: dict[str, Any], context: dict[str, Any], seccomp: Path) -> None:
    """Capabilities (exactly those), user, root, no_new_privs and seccomp of a security context."""
    names = [f"CAP_{name}" for name in context["capabilities"]["add"]]
    assert context["capabilities"]["drop"] == ["ALL"]
    made["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    made["process"]["user"] = {"uid": context["runAsUser"], "gid": context["runAsGroup"]}
    made["process"]["noNewPrivileges"] = not context["allowPrivilegeEscalation"]
    made["root"]["readonly"] = context["readOnlyRootFilesystem"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    made["linux"]["seccomp"] = resolve_seccomp(json.loads(seccomp.read_text()), set(names))


def resolve_seccomp(profile: dict[str, Any], capabilities: set[str]) -> dict[str, Any]:
    """The plain OCI profile that a runtime makes of its conditional one, for amd64 and these capabilities."""
    let_through = {call for capability, call in LET_THROUGH.items() if capability in capabilities}
    rules = [{"names": [call], "action": "SCMP_ACT_ALLOW"} for call in sorted(let_through)]
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if "arches" in includes and "amd64" not in includes["arches"]:
            continue
        if "amd64" in excludes.get("arches", []):
            continue
        if not set(includes.get("caps", [])) <= capabilities or set(excludes.get("caps", [])) & capabilities:
            continue
        rule["names"] = [name for name in rule["names"] if name not in let_through]
        rules.append({key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)})
    made = {key: profile[key] for key in ("defaultAction", "defaultErrnoRet") if key in profile}
    return made | {"architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}


def apply_limits(made: dict[str, Any], limits: dict[str, str]) -> None:
    """The memory and CPU limits, as cgroup settings."""
    resources: dict[str, Any] = {}
    if "memory" in limits:
        resources["memory"] = {"limit": int(limits["memory"].removesuffix("Mi")) << 20}
    if "cpu" in limits:
        resources["cpu"] = {"period": 100_000, "quota": int(limits["cpu"].removesuffix("m")) * 100}
    made["linux"]["resources"] = resources


def give_everything(made: dict[str, Any]) -> None:
    """What a container needs to be a machine of its own: all rights that we have, and its own settings."""
    names = [f"CAP_{name}" for name in sorted(read_host().capabilities)]
    made["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    made["process"]["noNewPrivileges"] = False
    made["linux"] |= {"maskedPaths": [], "readonlyPaths": []}
    made["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
