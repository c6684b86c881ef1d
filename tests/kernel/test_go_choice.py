"""Which of its two resolvers Go takes: what we say, beside what Go itself says, in many surroundings."""

from __future__ import annotations

import functools
import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gotarget import BUILD
from gotool import NEWEST, OLDEST, go, go_environment

from ebpfdns.explain import go_choice
from ebpfdns.observe import go_surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")]

SOURCE = Path(__file__).parents[1] / "workloads" / "go_choice.go"
LATER_NS = 1 << 62  # the process "begins" behind all changes
SAID = re.compile(r"hostLookupOrder\((.*)\) = (\S+)")
SURROUNDINGS = 307

GODEBUGS = [
    "netdns=2",
    "netdns=2",
    "netdns=go+2",
    "netdns=cgo+2",
    "netdns=2+cgo",
    "netdns=2+go",
    "netdns=C+2",
    "netdns=go,netdns=2",
    "netdns=2,http2client=0,netdns=cgo+2",
    "netdns=2#x",
    "xnetdns=go,netdns=2",
]
VARIABLES = ["LOCALDOMAIN=", "LOCALDOMAIN=a.example", "RES_OPTIONS=", "RES_OPTIONS=rotate", "HOSTALIASES=/x"]
CONFS: list[str | None] = [
    "nameserver 192.0.2.1\n",
    "nameserver 192.0.2.1\noptions edns0 trust-ad no-reload\nsearch a.example\n",
    "options timeout:1 attempts:1 ndots:5 rotate single-request-reopen use-vc\n",
    "options debug\n",
    "options inet6 timeout:1\n",
    "sortlist 192.0.2.0/24\n",
    "# sortlist\n; options debug\n",
    " # sortlist\n",
    "\toptions\tuse-vc\r\nlookup file bind\n",
    "Nameserver 192.0.2.1\n",
    "",
    None,
]
NSSWITCHES: list[str | None] = [
    "hosts: files dns\n",
    "hosts: dns files\n",
    "hosts:files\tdns\n",
    "hosts: files [NOTFOUND=return] dns\n",
    "hosts: files [!UNAVAIL=return] dns\n",
    "hosts: files dns [SUCCESS=return NOTFOUND=continue]\n",
    "hosts: files dns [NOTFOUND=return]\n",
    "hosts: files dns [unavail=Merge]\n",
    "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\n",
    "hosts: files mdns4_minimal [NOTFOUND=return] dns myhostname mdns4\n",
    "hosts: files myhostname dns\n",
    "hosts: myhostname\n",
    "hosts: mdns4\n",
    "hosts: dns\nhosts: files\n",
    "hosts: files # dns\n",
    "hosts: nis dns files\n",
    "hosts: files nis\n",
    "passwd: files\n",
    "hosts\n",
    "hosts: files [NOTFOUND dns\n",
    "hosts: files [x] dns\n",
    "",
    None,
]
NAMES = [
    "www.example.com",
    "www.example.com.",
    "printer.local",
    "PRINTER.LOCAL.",
    "local",
    r"a\.example",
    "a%b.example",
    "localhost",
    "LocalHost.LocalDomain.",
    "a.localhost",
    "_gateway",
    "_outbound",
    "gateway",
    os.uname().nodename,
]


def build(version: str, *, has_cgo: bool, to: Path) -> Path:
    """Static, as it runs in an empty root; libc's part too."""
    path = to / f"go_choice-{version}-{has_cgo:d}"
    flags = ["-ldflags", '-linkmode external -extldflags "-static"'] if has_cgo else []
    environment = go_environment(version, BUILD / "go", CGO_ENABLED=str(int(has_cgo)))
    # As the other programs are built, so that the standard library is compiled once.
    command = [str(go(version)), "build", "-trimpath", "-o", str(path), *flags, str(SOURCE)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    return path


@functools.cache
def all_surroundings() -> tuple[dict[str, Any], ...]:
    """The same ones each time: each odd thing alone, and many mixtures."""
    draw = random.Random(53)  # noqa: S311 - no secret
    return tuple(
        {
            "godebug": draw.choice(GODEBUGS) if number % 2 else GODEBUGS[0],
            "variables": draw.sample(VARIABLES, draw.choice([0, 0, 0, 1, 2])),
            "conf": draw.choice(CONFS),
            "nsswitch": draw.choice(NSSWITCHES),
            "has_allow": draw.random() < 0.2,
            "names": draw.sample(NAMES, 6),
        }
        for number in range(SURROUNDINGS)
    )


def prepare(root: Path, one: dict[str, Any], program: Path) -> dict[str, Any]:
    (root / "etc").mkdir(parents=True)
    os.link(program, root / "go_choice")
    for name, text in (("resolv.conf", one["conf"]), ("nsswitch.conf", one["nsswitch"])):
        if text is not None:
            (root / "etc" / name).write_text(text)
    if one["has_allow"]:
        (root / "etc" / "mdns.allow").touch()
    return {"root": str(root), "env": [f"GODEBUG={one['godebug']}", *one["variables"]], "names": one["names"]}


def ours(root: Path, one: dict[str, Any], version: str, *, has_cgo: bool) -> Iterator[tuple[str, str]]:
    numbers = [int(part) for part in version.split(".")]
    facts = {
        "version": numbers,
        "settings": {"CGO_ENABLED": str(int(has_cgo))},
        "has_cgo_lookup": has_cgo,
        "environment": {
            "GODEBUG": one["godebug"],
            **dict(variable.split("=", 1) for variable in one["variables"]),
        },
        "host_name": os.uname().nodename,
        **go_surroundings.files(os.getpid(), str(root), (numbers[0], numbers[1]), LATER_NS),
    }
    for name in one["names"]:
        found = go_choice.choose(facts, name)
        assert found.why, (name, facts)
        yield name, "cgo" if found.resolver == "cgo" else str(found.sources)


@pytest.mark.parametrize("has_cgo", [True, False], ids=["cgo", "pure"])
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_go_itself_says_the_same(version, has_cgo, tmp_path):
    """For each name in each of 307 surroundings we say what Go itself prints with GODEBUG=netdns=2."""
    program = build(version, has_cgo=has_cgo, to=tmp_path)
    roots = {tmp_path / str(number): one for number, one in enumerate(all_surroundings())}
    lines = [json.dumps(prepare(root, one, program)) for root, one in roots.items()]
    said = subprocess.run(
        [str(program), "drive"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.splitlines()
    assert len(said) == len(lines)
    different = []
    for (root, one), text in zip(roots.items(), map(json.loads, said), strict=True):
        theirs = [(match[1], match[2]) for match in SAID.finditer(text)]
        assert len(theirs) == len(one["names"]), (one, text)
        told = list(ours(root, one, version, has_cgo=has_cgo))
        different += [(one, mine, other) for mine, other in zip(told, theirs, strict=True) if mine != other]
    assert different == []
