"""The manifests as values: documents, pod specs, containers, and what is written about their capabilities.

Owns: where the manifests lie and how they are read. Must not know: runc, or what a test asserts.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))


def documents(manifest: Path) -> list[dict[str, Any]]:
    """Every document of a manifest file."""
    return [document for document in yaml.safe_load_all(manifest.read_text()) if document]


def pod_spec(manifest: Path) -> dict[str, Any]:
    """The pod spec of a manifest: of its Pod, or of its DaemonSet's template."""
    for document in documents(manifest):
        if document["kind"] == "Pod":
            return document["spec"]
        if document["kind"] == "DaemonSet":
            return document["spec"]["template"]["spec"]
    raise LookupError(f"{manifest.name} has neither a Pod nor a DaemonSet")


def agent(manifest: Path) -> dict[str, Any]:
    """The agent's container in a manifest."""
    return next(c for c in pod_spec(manifest)["containers"] if c["name"] == "ebpfdns")


def environment(manifest: Path) -> dict[str, str]:
    """What the agent's `envFrom` gives: the data of the ConfigMaps in the same file."""
    data = {d["metadata"]["name"]: d["data"] for d in documents(manifest) if d["kind"] == "ConfigMap"}
    wanted = [source["configMapRef"]["name"] for source in agent(manifest).get("envFrom", [])]
    return {key: value for name in wanted for key, value in data[name].items()}


def capabilities(manifest: Path) -> list[str]:
    """The capabilities the agent's container adds, as written (without `CAP_`)."""
    return agent(manifest)["securityContext"]["capabilities"]["add"]


def capability_section() -> str:
    """What docs/deployment.md says about capabilities."""
    return (ROOT / "docs/deployment.md").read_text().split("\n## Capabilities\n")[1].split("\n## ")[0]


def larger_list() -> list[str]:
    """The capabilities that the documented JSON patch puts in place of the manifests' list."""
    patch = re.search(r"--patch '\n(.+?)'\n", capability_section(), re.DOTALL)[1]
    [operation] = json.loads(patch)
    assert operation["path"].endswith("/containers/0/securityContext/capabilities/add")
    return operation["value"]


def reasons(text: str) -> dict[str, str]:
    """Map each capability listed under `add:` to the comment lines directly above it (empty when none)."""
    found: dict[str, str] = {}
    comment: list[str] = []
    inside = False
    for line in text.splitlines():
        stripped = line.strip()
        if re.fullmatch(r"add:", stripped):
            inside, comment = True, []
        elif inside and stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
        elif inside and (match := re.fullmatch(r"- ([A-Z_]+)", stripped)):
            found[match[1]] = " ".join(comment)
            comment = []
        elif inside:
            inside = False
    return found
