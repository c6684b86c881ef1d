"""One list of capabilities: the manifests, the systemd unit and the documentation name the same ones."""

from __future__ import annotations

import re

import pods
import pytest

SYSTEMD = pods.ROOT / "deploy/systemd"
UNIT = SYSTEMD / "ebpfdns@.service"
DROP_IN = SYSTEMD / "with-sys-admin.conf"


def in_unit(path=UNIT) -> list[str]:
    """The capabilities of a systemd unit or drop-in, without `CAP_`."""
    line = re.search(r"^CapabilityBoundingSet=(.+)$", path.read_text(), re.MULTILINE)[1]
    return [name.removeprefix("CAP_") for name in line.split()]


def in_document() -> list[str]:
    """The capabilities in the first column of the table under "Capabilities" in the documentation."""
    table = pods.capability_section().split("\n\n### ")[0]
    return re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("manifest", pods.MANIFESTS, ids=lambda path: path.name)
def test_manifest_lists_what_is_documented(manifest):
    """A manifest adds exactly the capabilities that docs/deployment.md explains, in its order."""
    assert pods.capabilities(manifest) == in_document()


def test_unit_lists_what_is_documented():
    """The systemd unit keeps exactly the capabilities that docs/deployment.md explains, in its order."""
    assert in_unit() == in_document()


@pytest.mark.parametrize("path", [UNIT, DROP_IN], ids=lambda path: path.name)
def test_unit_says_why(path):
    """Each capability new in the unit, or its drop-in, has a comment line that begins with its name."""
    explained = set() if path == UNIT else set(in_unit(UNIT))
    for name in set(in_unit(path)) - explained:
        assert re.search(rf"^# {name}: .{{20,}}$", path.read_text(), re.MULTILINE), name


def test_each_loss_is_documented():
    """The documentation says for every capability of the list, and no other, what is lost without it."""
    assert re.findall(r"^### Without `([A-Z_]+)`$", pods.capability_section(), re.MULTILINE) == in_document()


def test_the_larger_list_is_one_list():
    """Where the small list is refused, the drop-in for systemd and the patch for Kubernetes say the same."""
    assert in_unit(DROP_IN) == pods.larger_list()


def test_privilege_stays_out():
    """SYS_ADMIN is in the larger list only, and neither list has what would give every right back."""
    assert "SYS_ADMIN" not in in_document()
    assert not {"SYS_MODULE", "SYS_RAWIO", "SETUID", "DAC_OVERRIDE"} & {*in_document(), *pods.larger_list()}
