# The house keeper: `make` alone says what there is. The work itself is in deploy/setup.sh, ruff, mypy and pytest.
# Everything here can be run twice, and uses sudo only when you are not root.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

SETUP := deploy/setup.sh
PYTHON := .venv/bin/python
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# What the tests use beside Python: compilers for the targets, tools to break networks, peers to compare with,
# and real programs that look names up.
TEST_PACKAGES := gcc libc6-dev musl-tools iproute2 nftables procps runc logrotate rsyslog strace systemd bpftrace bpfcc-tools \
	curl nodejs bind9-dnsutils
# The oldest and the newest Go that PyPI has: what lies between is like one of them.
TEST_GO := 1.21.13 1.27.3
# What needs no root: everything but tests/kernel and tests/deploy.
WITHOUT_ROOT := $(wildcard tests/unit tests/contract tests/replay)

.PHONY: help demo install uninstall test bench matrix go-matrix check lint types unit kernel deploy-tests lock clean

help: ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch a lookup get stuck and be explained, in a network namespace of its own
	@$(SETUP) packages
	@$(SETUP) environment
	@$(SUDO) $(PYTHON) -m ebpfdns demo

install: ## put `ebpfdns` on root's PATH (/usr/local/bin/ebpfdns, files in /opt/ebpfdns)
	@$(SETUP) packages
	@$(SETUP) install

uninstall: ## take it away again
	@$(SETUP) uninstall

# Two at a time, file by file: a test of a stuck lookup mostly waits.
test: ## everything: lint, types, and all tests on real BPF (root, minutes)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	@$(SETUP) go $(TEST_GO)
	@$(MAKE) --no-print-directory lint types
	$(SUDO) $(PYTHON) -m pytest -n 2 --dist loadfile tests

bench: ## measure every budget of docs/overhead.md on this machine (root, minutes)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	@$(SETUP) go $(TEST_GO)
	$(SUDO) $(PYTHON) tests/bench/run.py

matrix: ## make every fault for real, and see what the agent says of each (root, minutes)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	@$(SETUP) go $(TEST_GO)
	$(SUDO) $(PYTHON) tests/matrix/run.py --write

go-matrix: ## Go programs of eight builds under each fault, Go's own faults, 100,003 lookups (root, minutes)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	@$(SETUP) go $(TEST_GO)
	$(SUDO) $(PYTHON) tests/matrix/go_run.py --write

check: lint types ## what to run before each commit: lint, types and the tests that need no root (seconds)
	$(PYTHON) -m pytest -q $(WITHOUT_ROOT)

lint: ## ruff over everything
	@$(SETUP) environment test
	$(PYTHON) -m ruff check .

types: ## mypy --strict over the package
	@$(SETUP) environment test
	$(PYTHON) -m mypy

unit: ## tests of single modules (no root)
	@$(SETUP) environment test
	$(PYTHON) -m pytest -q tests/unit

kernel: ## tests that load BPF programs and build networks (root)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	@$(SETUP) go $(TEST_GO)
	$(SUDO) $(PYTHON) -m pytest tests/kernel

deploy-tests: ## tests of deploy/: real containers, rsyslog, the unit, the manifests (root)
	@$(SETUP) packages $(TEST_PACKAGES)
	@$(SETUP) environment test
	$(SUDO) $(PYTHON) -m pytest tests/deploy

lock: ## choose the pinned versions anew, after a change of the dependencies in pyproject.toml
	@$(SETUP) lock

clean: ## remove what building and testing left in the tree (not .venv)
	$(SUDO) rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
