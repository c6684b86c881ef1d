"""The Kubernetes manifests: valid for every version that knows their fields, with no needless rights."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pods
import pytest

from ebpfdns.observe import programs

#: `appArmorProfile` became a field in 1.30; before, it was an annotation.
OLDEST = (1, 30)


def known_versions() -> list[str]:
    """Kubernetes versions whose schemas are installed, from the oldest supported one on."""
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    names = {match[1] for d in schemas.iterdir() if (match := re.match(r"v(\d+\.\d+)\.", d.name))}
    versions = sorted(tuple(int(part) for part in name.split(".")) for name in names)
    return [f"{major}.{minor}" for major, minor in versions if (major, minor) >= OLDEST]


def faults(document, version):
    """What the schema of this version has against a document; None: nothing."""
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{error.path}: {error.message}"
    return None


@pytest.mark.parametrize("version", known_versions())
@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_every_document_is_valid_in_strict_mode(manifest, version):
    """Every document satisfies the strict schema (no unknown field) of that Kubernetes version."""
    found = pods.documents(manifest)
    assert found
    for document in found:
        assert faults(document, version) is None


def test_several_kubernetes_versions_are_checked():
    """The schemas at hand cover the oldest supported version and several later ones."""
    versions = known_versions()
    assert versions[0] == ".".join(map(str, OLDEST))
    assert len(versions) >= 4


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_nothing_is_privileged(manifest):
    """The agent is not privileged, cannot gain rights or write its root, and drops what it does not add."""
    assert "privileged: true" not in manifest.read_text()
    context = pods.agent(manifest)["securityContext"]
    assert "privileged" not in context
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    assert context["seccompProfile"]["type"] != "Unconfined"


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_every_capability_has_its_reason(manifest):
    """Each capability has its own comment above it, a sentence long, that says what needs it."""
    reasons = pods.reasons(manifest.read_text())
    assert list(reasons) == pods.capabilities(manifest)
    for capability, reason in reasons.items():
        assert len(reason) > 40, f"{manifest.name}: {capability} has no reason"


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_capabilities_are_spelled_as_kubernetes_wants_them(manifest):
    """No `CAP_` prefix: the API server refuses CAP_SYS_ADMIN beside `allowPrivilegeEscalation: false`."""
    assert not [name for name in pods.capabilities(manifest) if name.startswith("CAP_")]


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_host_directories_are_mounted_read_only(manifest):
    """Each directory of the host is mounted read-only, and the only writable volume lives in memory."""
    spec = pods.pod_spec(manifest)
    mounts = {mount["name"]: mount for mount in pods.agent(manifest)["volumeMounts"]}
    assert {volume["name"] for volume in spec["volumes"]} == set(mounts)
    for volume in spec["volumes"]:
        if "hostPath" in volume:
            assert mounts[volume["name"]]["readOnly"] is True, volume["name"]
        else:
            assert volume["emptyDir"]["medium"] == "Memory", volume["name"]


def test_only_the_daemonset_sees_the_nodes_processes():
    """The DaemonSet has the node's pids, the sidecar the pod's, and neither has the node's network or IPC."""
    node, sidecar = (pods.pod_spec(pods.KUBERNETES / f) for f in ("daemonset.yaml", "sidecar.yaml"))
    assert node["hostPID"] is True
    assert "hostPID" not in sidecar
    assert sidecar["shareProcessNamespace"] is True
    for spec in (node, sidecar):
        assert not spec.get("hostNetwork")
        assert not spec.get("hostIPC")
        assert spec["automountServiceAccountToken"] is False


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_arguments_use_only_variables_that_are_given(manifest):
    """Every $(VARIABLE) in the arguments comes from the ConfigMap; all others there are `attach` options."""
    environment = pods.environment(manifest)
    used = {name for arg in pods.agent(manifest)["args"] for name in re.findall(r"\$\((\w+)\)", arg)}
    assert used <= set(environment)
    assert all(name.startswith("EBPFDNS_ATTACH_") for name in set(environment) - used)


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_probes_wait_for_the_file_the_agent_is_told_to_make(manifest):
    """The probes look for the very --ready-file of the arguments, and it lies in a mounted volume."""
    container = pods.agent(manifest)
    ready = container["args"][container["args"].index("--ready-file") + 1]
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"][-1] == ready
    assert any(ready.startswith(mount["mountPath"] + "/") for mount in container["volumeMounts"])


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_compiled_programs_outlive_the_container(manifest):
    """The folder above the programs' own is a volume: there the agent makes one that only it may write."""
    paths = {mount["mountPath"]: mount for mount in pods.agent(manifest)["volumeMounts"]}
    assert "readOnly" not in paths[str(programs.CACHE.parent)]
    assert str(programs.CACHE) not in paths


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_the_image_is_this_version(manifest):
    """The manifests name the image of the package's own version, never `latest`."""
    version = re.search(r'__version__ = "(.+)"', (pods.ROOT / "agent/ebpfdns/__init__.py").read_text())[1]
    assert pods.agent(manifest)["image"] == f"ebpfdns:{version}"
