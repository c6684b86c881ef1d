"""Real resolvers of a distribution, run in a sandbox: systemd-resolved, dnsmasq, unbound.

Owns: where their programs are, their configuration, and the command that runs each.
Must not know: which fault they are part of, or what is concluded from it.

Nothing is installed or configured outside: a daemon runs as any program does, in the sandbox's own /etc and
/run. Where it is not installed, its package can be unpacked anywhere and its folders put into PATH (and
LD_LIBRARY_PATH).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ebpfdns.errors import HostCannotTraceError
from ebpfdns.lab.namespace import bare_python

if TYPE_CHECKING:
    from ebpfdns.lab.namespace import Sandbox

#: Where daemons are, beside PATH.
FOLDERS = ("/usr/sbin", "/sbin", "/lib/systemd", "/usr/lib/systemd")
PACKAGES = {"systemd-resolved": "systemd-resolved", "dnsmasq": "dnsmasq-base", "unbound": "unbound"}
RESOLVE = "/run/systemd/resolve/io.systemd.Resolve"
STUB = "127.0.0.53"
FORWARDER = "127.0.0.1"
#: It gives up root for this user, which a host without it does not have.
USERS = "root:x:0:0:root:/root:/bin/sh\nsystemd-resolve:x:991:991::/:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nsystemd-resolve:x:991:\n"


def program(name: str) -> str | None:
    """The path of a daemon's program; None when it is not here."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))


def needed(name: str) -> str:
    """The path of a daemon's program; HostCannotTraceError when it is not here."""
    found = program(name)
    if found is None:
        package = PACKAGES[name]
        raise HostCannotTraceError(
            f"{name} is not installed here",
            remedy=f"apt-get download {package}; dpkg -x {package}_*.deb DIR; and put its folder into PATH",
        )
    return found


@dataclass(frozen=True, slots=True)
class Resolved:
    """systemd-resolved, with its stub on 127.0.0.53 and its local socket; see `configure_resolved`."""

    trusts: str | None = None  # a certificate, instead of those of the system

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        words = ["--set", f"SSL_CERT_FILE={self.trusts}"] if self.trusts else []
        return _started(needed("systemd-resolved"), ready_file, "--udp", STUB, "--unix", RESOLVE, *words)


@dataclass(frozen=True, slots=True)
class Dnsmasq:
    """dnsmasq on 127.0.0.1, which asks these servers."""

    servers: tuple[str, ...]
    words: tuple[str, ...] = ()
    cache_size: int = 0

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        words = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file"]
        words += ["--user=root", "--bind-interfaces", f"--listen-address={FORWARDER}"]
        words += [f"--cache-size={self.cache_size}"]
        words += [f"--server={server}" for server in self.servers]
        return _started(needed("dnsmasq"), ready_file, "--udp", FORWARDER, tail=[*words, *self.words])


@dataclass(frozen=True, slots=True)
class Unbound:
    """unbound on 127.0.0.1; see `configure_unbound`."""

    def argv(self, ready_file: Path, _log_file: Path | None) -> list[str]:
        """The command that runs it."""
        words = ["-d", "-c", UNBOUND_CONF]
        return _started(needed("unbound"), ready_file, "--udp", FORWARDER, tail=words)


UNBOUND_CONF = "/etc/.lab/unbound.conf"


def _started(path: str, ready_file: Path, *words: str, tail: list[str] | None = None) -> list[str]:
    options = ["--ready-file", str(ready_file), *words]
    return bare_python("daemon_starter", *options, "--", path, *(tail or []))


def configure_resolved(sandbox: Sandbox, servers: str, **settings: str) -> None:
    """Write its configuration: `servers` as in `DNS=`, further settings by name (DNSOverTLS="yes")."""
    needed("systemd-resolved")
    chosen = {"LLMNR": "no", "MulticastDNS": "no", "DNSSEC": "no", "FallbackDNS": "", "Cache": "no"}
    lines = (f"{name}={value}\n" for name, value in ({"DNS": servers} | chosen | settings).items())
    for name, text in (("passwd", USERS), ("group", GROUPS)):
        _replace(sandbox, name, text)
    folder = sandbox.root / "etc/systemd"
    if folder.is_symlink():
        folder.unlink()
        folder.mkdir()
    (folder / "resolved.conf").write_text(f"[Resolve]\n{''.join(lines)}", encoding="ascii")
    (sandbox.root / "run/systemd").mkdir(exist_ok=True)


def make_certificate(sandbox: Sandbox, path: str, address: str) -> None:
    """A key and a certificate of its own for an address, in one file that anybody can read."""
    if shutil.which("openssl") is None:
        raise HostCannotTraceError("a certificate is made with openssl", remedy="apt-get install openssl")
    place = sandbox.root / path.lstrip("/")
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=lab", "-addext", f"subjectAltName=IP:{address}"]
    files = ["-keyout", str(place), "-out", f"{place}.crt"]
    subprocess.run(["openssl", *words, *files], check=True, capture_output=True)
    place.write_text(place.read_text() + Path(f"{place}.crt").read_text())
    place.chmod(0o644)


def configure_unbound(sandbox: Sandbox, server: str) -> None:
    """Let it ask one server for everything."""
    needed("unbound")
    lines = [
        "server:",
        *('  chroot: ""', '  username: ""', '  pidfile: ""', '  directory: "/"', "  use-syslog: no"),
        *('  module-config: "iterator"', "  do-ip6: no", "  num-threads: 1", "  do-daemonize: no"),
        *(f"  interface: {FORWARDER}", '  local-zone: "test." nodefault'),
        *("forward-zone:", '  name: "."', f"  forward-addr: {server}"),
    ]
    (sandbox.root / UNBOUND_CONF.lstrip("/")).write_text("\n".join(lines) + "\n", encoding="ascii")


def _replace(sandbox: Sandbox, name: str, text: str) -> None:
    """A file of the sandbox's own in place of the host's, which is a link there."""
    place = sandbox.root / "etc" / name
    if place.is_symlink():
        place.unlink()
    place.write_text(text, encoding="ascii")
