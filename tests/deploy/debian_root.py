"""A root file system like the image's, without a container engine: packages unpacked, dependencies added.

Owns: the cached tree under build/ (keyed by what goes into it) and how the project gets into it.
Must not know: runc or Kubernetes. The package list and the lock are read from deploy/container, so
that what is tested is what the image has.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pods

CONTAINER = pods.ROOT / "deploy/container"
CACHE = pods.ROOT / "build/deploy-root"
#: Change it when this file makes the tree in another way.
LAYOUT = 3
#: What the slim base image has and the probes in the manifests use (`test`).
BASE = ["coreutils"]
#: Only its file is taken: the seccomp profile that podman and CRI-O call the default one.
SECCOMP_PACKAGE = "golang-github-containers-common"
ENVIRONMENT = Path("opt/ebpfdns")


class Unavailable(Exception):  # noqa: N818 - it is a reason to skip, not an error
    """Something from outside that the tree is made of cannot be had."""


def packages(more: tuple[str, ...] = ()) -> list[str]:
    """The Debian packages of the image's last stage, and these."""
    last = (CONTAINER / "Dockerfile").read_text().split("\nFROM ")[-1]
    names = re.search(r"apt-get install --yes --no-install-recommends ([\w .+-]+)", last)[1].split()
    return [*BASE, *names, *more, SECCOMP_PACKAGE]


def root(*more: str) -> Path:
    """The tree, made if it is not there yet: the packages (and more), the locked dependencies."""
    lock = (CONTAINER / "requirements.txt").read_text()
    key = hashlib.sha256(repr((LAYOUT, packages(more), lock)).encode()).hexdigest()[:12]
    ready = CACHE / key
    if not ready.exists():
        draft = CACHE / f"{key}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        make(draft, packages(more))
        draft.rename(ready)
    return ready


def seccomp_profile() -> Path:
    """The runtimes' default seccomp profile, in the containers-common format (conditions on capabilities)."""
    return root() / "usr/share/containers/seccomp.json"


def make(tree: Path, names: list[str]) -> None:
    """Make the tree from nothing."""
    for folder in ("bin", "sbin", "lib", "lib64"):
        (tree / "usr" / folder).mkdir(parents=True)
        (tree / folder).symlink_to(f"usr/{folder}")
    for archive in download(CACHE / "apt", names):
        unpack(archive, tree)
    for folder in ("dev", "etc", "proc", "run/ebpfdns", "sys", "tmp", "usr/local/bin", "work"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "etc/resolv.conf").touch()
    (tree / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    # As the Dockerfile makes it, by the tree's own Python.
    venv = ["chroot", tree, "/usr/bin/python3", "-m", "venv", "--without-pip", "--system-site-packages"]
    run(venv, "/opt/ebpfdns")
    install(tree / site_packages(tree), "--require-hashes", "--requirement", CONTAINER / "requirements.txt")
    # Where the project's own wheel is mounted, which is newer than this tree at every run.
    (tree / site_packages(tree) / "ebpfdns").mkdir()
    script = tree / ENVIRONMENT / "bin/ebpfdns"
    script.write_text("#!/opt/ebpfdns/bin/python3\nfrom ebpfdns.cli import main\n\nmain()\n")
    script.chmod(0o755)


def site_packages(tree: Path) -> Path:
    """The environment's package directory, relative to the tree."""
    [found] = (tree / ENVIRONMENT / "lib").glob("python3*/site-packages")
    return found.relative_to(tree)


def download(state: Path, names: list[str]) -> list[Path]:
    """Fetch the packages and all they depend on, with an apt state of our own that has nothing installed."""
    for folder in ("lists/partial", "archives/partial", "none/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    apt = ["apt-get", "-qq", "-o", f"Dir::State={state}", "-o", f"Dir::State::status={state}/status"]
    apt += ["-o", f"Dir::Cache={state}", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]
    run(apt, "update")
    install = ["install", "--yes", "--no-install-recommends"]
    # What is in its cache already apt does not list: it is asked with a cache that stays empty.
    asking = ["--print-uris", "-o", f"Dir::Cache={state}/none"]
    wanted = run(apt, *install, *asking, *names)
    run(apt, *install, "--download-only", *names)
    files = [line.split()[1] for line in wanted.splitlines() if line.startswith("'")]
    return [state / "archives" / name for name in files]


def unpack(archive: Path, tree: Path) -> None:
    """Unpack one package; `--keep-directory-symlink` because /lib and friends are links into /usr."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as package:
        run(["tar", "-x", "--keep-directory-symlink", "-C", tree], stdin=package.stdout)


def install(target: Path, *what: object) -> None:
    """Let pip install wheels for the tree's Python into a directory."""
    version = re.search(r"python(3\.\d+)", str(target))[1]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-warn-conflicts", "--python-version", version, "--only-binary=:all:"]
    run(pip, "--target", target, *what)


def project(folder: Path) -> dict[str, Path]:
    """Build the project's wheel and unpack it: paths in the tree → what has to be mounted there."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(pip, "--no-build-isolation", "--wheel-dir", folder, pods.ROOT)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    return {f"/{site_packages(root()) / 'ebpfdns'}": folder / "wheel/ebpfdns"}


def run(command: list, *more: object, stdin: object = None) -> str:
    """Run a command that needs the outside world; say what could not be had when it fails."""
    line = [str(part) for part in (*command, *more)]
    result = subprocess.run(line, stdin=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"{line[0]} failed: {last}")
    return result.stdout
