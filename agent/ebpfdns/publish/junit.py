"""The closing summary as JUnit XML, for CI: each lookup that got stuck is a failed test case.

Owns: the form, and that any byte of a name is fit for XML. Must not know: files, exit codes.
Names of cases hold no pid, so that CI recognises a case from run to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ebpfdns.publish import plain
from ebpfdns.publish.phrases import clean

if TYPE_CHECKING:
    from ebpfdns.publish.closing import Closing, Stuck

SUITE = "ebpfdns"
HEALTHY = "no lookup got stuck"
MS_PER_S = 1000
SECONDS = len("2026-11-25T04:10:54")


def document(closing: Closing, *, command: str, host: str, started: str, duration_s: float) -> bytes:
    """The whole file. `started`: RFC 3339."""
    stuck = closing.stuck("lookup")
    counts = {"tests": str(max(len(stuck), 1)), "failures": str(len(stuck)), "errors": "0"}
    lasted = {"time": f"{duration_s:.3f}"}
    root = ET.Element("testsuites", {"name": SUITE, **counts, **lasted})
    about = {"name": SUITE, "package": "", "id": "0", "timestamp": started[:SECONDS], "hostname": clean(host)}
    suite = ET.SubElement(root, "testsuite", {**about, **counts, "skipped": "0", **lasted})
    properties = ET.SubElement(suite, "properties")
    lookups = closing.stats.get("lookups") or {}
    facts = {"command": clean(command)} | {f"lookups.{name}": str(count) for name, count in lookups.items()}
    for name, value in facts.items():
        ET.SubElement(properties, "property", {"name": name, "value": value})
    if stuck:
        seen: dict[str, int] = {}
        for one in stuck:
            _failed(suite, one, seen)
    else:
        ET.SubElement(suite, "testcase", {"classname": SUITE, "name": HEALTHY, **lasted})
    more = closing.stuck_lookups - len(stuck)
    ET.SubElement(suite, "system-out").text = f"{more} more lookups got stuck\n" if more else ""
    ET.SubElement(suite, "system-err").text = ""
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _failed(suite: ET.Element, one: Stuck, seen: dict[str, int]) -> None:
    """One case."""
    name = one.what
    seen[name] = seen.get(name, 0) + 1
    if seen[name] > 1:
        name = f"{name} #{seen[name]}"
    case = {
        "classname": f"{SUITE}.{one.program}",
        "name": name,
        "time": f"{(one.lasted_ms or 0) / MS_PER_S:.3f}",
    }
    cause = one.cause
    why = {"message": clean(cause.get("summary")) or "stuck", "type": clean(cause.get("id")) or "unknown"}
    failure = ET.SubElement(ET.SubElement(suite, "testcase", case), "failure", why)
    failure.text = f"{plain.text(one.last)}It {one.how_it_ended}.\n"
