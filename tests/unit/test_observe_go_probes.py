"""Where Go's functions are probed, and what the programs are told there."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest

from ebpfdns.model import boundary
from ebpfdns.model.boundary import GoFunctionKind
from ebpfdns.observe import go_probes
from ebpfdns.observe.go_layouts import layout_of

if TYPE_CHECKING:
    from pathlib import Path

BEGINNINGS = {
    "small frame": "493b6610 7606 55",
    "small frame, far": "493b6610 0f862c0b0000 55",
    "frame of some bytes": "4c8d6424c8 4d3b6610 7610 55",
    "large frame": "4c8da42450feffff 4d3b6610 0f862c0b0000 55",
}


@pytest.mark.parametrize("code", BEGINNINGS.values(), ids=BEGINNINGS)
def test_the_probe_is_behind_the_look_at_the_stack(code):
    """It is at `push %rbp`, whatever the look before is made of."""
    raw = bytes.fromhex(code)
    assert raw[go_probes.begin_of(raw + bytes(8)) :] == b"\x55"


@pytest.mark.parametrize("code", ["", "55", "493b6610", "493b6610 7606 90", "64488b0c25f8ffffff 55"])
def test_any_other_beginning_is_probed_at_its_first_byte(code):
    """What is not understood is left as it is."""
    assert go_probes.begin_of(bytes.fromhex(code)) == 0


def program(path: Path, *names: str, version: tuple[int, int] = (1, 27)) -> Any:
    functions = {
        name: types.SimpleNamespace(entry=16 * n, returns=(16 * n + 5, 16 * n + 9))
        for n, name in enumerate(names, 1)
    }
    return types.SimpleNamespace(path=str(path), functions=functions, layout=layout_of(version, "amd64"))


def placed(found: Any) -> dict[str, list[int]]:
    return {places.function: places.offsets for places in go_probes.places(found)}


def test_each_function_has_its_program_at_its_beginning_and_at_every_return(tmp_path):
    """Returns come first; of two functions one of which calls the other, the inner one is probed."""
    path = tmp_path / "program"
    path.write_bytes(bytes(16) + bytes.fromhex(BEGINNINGS["small frame"]).ljust(112, b"\x90"))
    names = ("lookupIPAddr", "LookupHost", "lookupHost", "exchange")
    found = placed(program(path, *(f"net.(*Resolver).{name}" for name in names), "net.dnsPacketRoundTrip"))
    assert list(found)[:2] == ["go_lookup_ends", "go_exchange_ends"]
    assert found == {
        "go_lookup_ends": [21, 25, 53, 57],
        "go_exchange_ends": [69, 73],
        "go_lookup_begins": [16 + 6, 48],
        "go_exchange_begins": [64],
        "go_round_trip_begins": [80],
    }


def test_a_program_without_a_resolver_is_not_probed(tmp_path):
    """Nor one that is too old."""
    path = tmp_path / "program"
    path.write_bytes(bytes(64))
    assert placed(program(path, "net.(*Resolver).exchange")) == {}
    assert placed(program(path, go_probes.NEEDED, version=(1, 16))) == {}


@pytest.mark.parametrize(
    ("version", "goid", "maker", "text", "error"),
    [((1, 19), 152, 0, 0, 31), ((1, 21), 152, 272, 0, 0), ((1, 24), 160, 280, 16, 0)],
)
def test_the_cookie_tells_the_version_apart(version, goid, maker, text, error):
    """Kind, offset of the goroutine's id, of its maker's, of an error's text, register of an error."""
    layout = layout_of(version, "amd64")
    assert layout is not None
    found = go_probes.cookie(layout, GoFunctionKind.EXCHANGE)
    assert found & 0xFF == GoFunctionKind.EXCHANGE
    assert found >> boundary.GO_COOKIE_ID & 0xFFF == goid
    assert found >> boundary.GO_COOKIE_PARENT & 0xFFF == maker
    assert found >> boundary.GO_COOKIE_TEXT & 0x3F == text
    assert found >> boundary.GO_COOKIE_ERROR == error
