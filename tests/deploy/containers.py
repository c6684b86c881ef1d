"""A target in a container, and the agent in another one beside it: on the node, or in the target's pod.

Owns: what the two containers are made of. Must not know: what the agent prints, or pytest.
"""

from __future__ import annotations

import itertools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import oci
import pods
import running

if TYPE_CHECKING:
    import contextlib

DAEMONSET = pods.KUBERNETES / "daemonset.yaml"
SIDECAR = pods.KUBERNETES / "sidecar.yaml"

#: One server, which never answers: a lookup is in flight for 3 seconds, so it is stuck after one.
RESOLV_CONF = "nameserver 127.0.0.1\noptions timeout:3 attempts:1\n"
#: Not root, and without a capability: what the agent is allowed must not depend on sharing a user.
USER = {"uid": 1000, "gid": 1000}
#: Namespaces that a container gets for itself (None: a new one).
NODE = dict.fromkeys(("network", "ipc", "uts", "mount", "cgroup"))
POD = NODE | {"pid": None}
#: In a pod the containers share these; the runtime's and the kernel's names of the kinds.
SHARED = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts"}
#: The silent DNS server listens on port 53 without being root.
UNPRIVILEGED_PORTS = {"net.ipv4.ip_unprivileged_port_start": "0"}
LIBC = "usr/lib/x86_64-linux-gnu/libc.so.6"
NUMBERS = itertools.count(1)
PAUSE = "import signal; print('pid', 1, flush=True); signal.pause()"


@dataclass(frozen=True)
class Setting:
    """What all containers of a test are made of, and how one is started."""

    root: Path
    project: dict[str, Path]
    seccomp: Path
    home: Path
    volumes: Path
    stack: contextlib.ExitStack

    @property
    def own_libc(self) -> Path:
        """The libc of a target that has one for itself."""
        return self.home / "libc/libc.so.6"

    def start(self, name: str, made: dict) -> running.Container:
        """Run a configuration, with the project's files mounted, until the test ends."""
        made["mounts"] = made["mounts"] + [oci.bind(source, path) for path, source in self.project.items()]
        unique = f"{name}-{os.getpid()}-{next(NUMBERS)}"
        return self.stack.enter_context(running.Container(unique, made, self.home))


@dataclass
class Pair:
    """A target, and how to start the agent beside it; `pid` is the target's as that agent must see it."""

    setting: Setting
    target: running.Container
    manifest: Path
    pid: int
    vpid: int
    namespaces: dict

    def agent(self, capabilities: list[str] | None = None, **options: str) -> running.Container:
        """Start the agent as its manifest says; with other capabilities, or further options of `attach`."""
        made = agent_of(self.manifest, self.setting, self.pid, self.namespaces, capabilities, **options)
        return self.setting.start("agent", made)

    def ready_agent(self, capabilities: list[str] | None = None, **options: str) -> running.Container:
        """The same, once its start-up probe succeeds."""
        agent = self.agent(capabilities, **options)
        self.await_start(agent)
        return agent

    def await_start(self, agent: running.Container) -> None:
        """Wait as kubelet does."""
        agent.await_start(pods.agent(self.manifest)["startupProbe"], self.ready_file)

    def agent_without_mount(self, path: str) -> running.Container:
        """Start the agent as its manifest says, but for one mount."""
        made = agent_of(self.manifest, self.setting, self.pid, self.namespaces)
        made["mounts"] = [mount for mount in made["mounts"] if mount["destination"] != path]
        return self.setting.start("agent", made)

    @property
    def ready_file(self) -> Path:
        """Where the agent's ready file is for us."""
        return self.setting.volumes / "run/ready"


def agent_on_node(setting: Setting, *, with_own_libc: bool = False) -> Pair:
    """A target in a pod of its own, and the DaemonSet's agent: the node's pids, everything else its own."""
    made = target_of(setting, POD)
    if with_own_libc:
        # A copy in a folder of its own, which can be taken away while the target runs.
        setting.own_libc.parent.mkdir()
        shutil.copy(setting.root / LIBC, setting.own_libc)
        made["mounts"].append(oci.bind(setting.own_libc.parent, "/work/libc"))
        made["process"]["env"].append("LD_LIBRARY_PATH=/work/libc")
    target = setting.start("target", made)
    vpid = int(target.line("pid "))
    return Pair(setting, target, DAEMONSET, pid=target.pid, vpid=vpid, namespaces=NODE)


def agent_in_pod(setting: Setting) -> Pair:
    """A target and the sidecar's agent in one process namespace, beside the pod's pause process."""
    made = oci.configuration(setting.root, ["/usr/bin/python3", "-c", PAUSE], namespaces=POD)
    made["linux"]["sysctl"] = UNPRIVILEGED_PORTS
    sandbox = setting.start("pause", made)
    sandbox.line("pid ")
    pod = NODE | {kind: f"/proc/{sandbox.pid}/ns/{file}" for kind, file in SHARED.items()}
    target = setting.start("target", target_of(setting, pod))
    vpid = int(target.line("pid "))
    return Pair(setting, target, SIDECAR, pid=vpid, vpid=vpid, namespaces=pod)


def target_of(setting: Setting, namespaces: dict) -> dict:
    """The configuration of a container whose lookups get stuck."""
    (setting.home / "resolv.conf").write_text(RESOLV_CONF)
    script = Path(__file__).with_name("stuck_target.py")
    made = oci.configuration(setting.root, ["/usr/bin/python3", "/work/target.py"], namespaces=namespaces)
    made["process"]["user"] = USER
    if namespaces["network"] is None:
        made["linux"]["sysctl"] = UNPRIVILEGED_PORTS
    made["mounts"] = [
        *made["mounts"],
        oci.mount("/work", "tmpfs"),
        oci.bind(script, "/work/target.py"),
        oci.bind(setting.home / "resolv.conf", "/etc/resolv.conf"),
    ]
    return made


def agent_of(
    manifest: Path,
    setting: Setting,
    pid: int,
    namespaces: dict,
    capabilities: list[str] | None = None,
    **options: str,
) -> dict:
    """The agent's configuration as its manifest says, for this target; options as in its ConfigMap."""
    environment = {f"EBPFDNS_ATTACH_{name.upper()}": value for name, value in options.items()}
    container = pods.agent(manifest)
    if capabilities is not None:
        container["securityContext"]["capabilities"]["add"] = capabilities
    return oci.from_pod(
        pods.pod_spec(manifest),
        container,
        root=setting.root,
        entry_point=["/opt/ebpfdns/bin/ebpfdns"],
        environment=pods.environment(manifest) | {"TARGET_PID": str(pid)} | environment,
        empty_dirs=setting.volumes,
        namespaces=namespaces,
        seccomp=setting.seccomp,
    )
