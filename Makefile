# Everything a person or CI does here. `make help` lists it; each target sets up what it needs, also on a bare
# Debian 12 machine as root. Only .venv and .cache are written besides, and both may be deleted at any time.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
# Each of the many processes that tests start would else compile all it imports.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help demo test test-vm test-cluster e2e cluster-up cluster-down chaos bench bench-cluster bench-io bench-vm stubs lint format \
	coverage clean debian vm io sanity helm cluster generate

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
# Where a target's tests are counted by kind, for .ci/run; left empty, nothing is written.
COUNTS ?=
# More arguments for pytest, e.g. ARGS='-k expand -x'.
ARGS ?=
# --cov measures which lines the tests reach, also in the server that they start.
COV ?=

QUICK := lint unit contract linux grpc sanity
comma := ,
space := $(subst ,, )
# $(call kinds,A B): run the folders tests/A tests/B, and fail if A or B ran nothing.
kinds = $(addprefix tests/,$(1)) --kinds $(subst $(space),$(comma),$(1)) $(if $(COUNTS),--counts $(COUNTS)) $(ARGS)
# Two workers for two cores; a group (csi-sanity) stays on one of them.
TWO_WIDE := -n 2 --dist loadgroup

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.synced  ## the whole life of volumes through the real socket, step by step
	@.venv/bin/csi-local-path demo

test: debian .venv/.synced sanity helm  ## linters, unit, contract, linux, grpc and csi-sanity
	@$(PYTEST) $(COV) $(TWO_WIDE) $(call kinds,$(QUICK))

test-vm: debian vm sanity .venv/.synced  ## limits by project quotas, in an emulated machine (about eight minutes)
	@COUNTS='$(COUNTS)' tests/vm/limits $(ARGS)

test-cluster: debian .venv/.synced helm cluster  ## tests in a real Kubernetes of three nodes
	@$(PYTHON) -m tests.cluster run $(PYTEST) $(call kinds,cluster)

e2e: debian .venv/.synced helm cluster  ## all of Kubernetes' external-storage suite, for each backend (half an hour)
	@$(PYTHON) -m tests.cluster run $(PYTHON) -m tests.cluster e2e --all

cluster-up: debian .venv/.synced helm cluster  ## that Kubernetes, to be used by hand
	@$(PYTHON) -m tests.cluster up

cluster-down:  ## end it; nothing of it stays
	@[ ! -e .cache/cluster ] || $(PYTHON) -m tests.cluster down

# The matrix drives two lanes itself, and prints as it goes.
chaos: debian .venv/.synced  ## kill, fault and power-cut matrices (about six minutes)
	@$(PYTEST) $(call kinds,chaos)

bench: debian .venv/.synced  ## what calls cost, as a table and as JSON (about a quarter of an hour)
	@$(PYTHON) -m tests.bench $(ARGS)

bench-cluster: debian .venv/.synced helm cluster  ## those of the driver in a real Kubernetes (about fifteen minutes)
	@$(PYTHON) -m tests.cluster run $(PYTHON) -m tests.cluster.bench $(ARGS)

bench-io: debian io .venv/.synced  ## reads and writes in volumes beside those in plain directories (half an hour)
	@$(PYTHON) -m tests.bench --only io --json build/bench-io.json $(ARGS)

bench-vm: debian vm .venv/.synced  ## what calls cost with project quotas, in an emulated machine
	@tests/vm/bench $(ARGS)

stubs: .venv/.synced  ## make csi/pb/ anew from proto/csi.proto
	@$(PYTHON) proto/generate.py

generate: .venv/.synced helm  ## make what is derived in deploy/ and docs/ anew
	@$(PYTHON) deploy/generate.py

lint: .venv/.synced helm  ## ruff, mypy, import-linter, sizes, stubs, chart
	@$(PYTEST) $(call kinds,lint)

format: .venv/.synced  ## format the code and apply what ruff can fix
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

coverage: COV := --cov
coverage: test  ## the same as test, and which lines it never reached

clean: cluster-down  ## remove what can be made anew: environment, caches, builds
	@rm -rf .venv .cache build dist *.egg-info .coverage .coverage.* .hypothesis .import_linter_cache
	@rm -rf .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.synced: .ci/setup pyproject.toml uv.lock
	@.ci/setup debian venv

debian:
	@.ci/setup debian

vm:
	@.ci/setup vm

io:
	@.ci/setup bench

sanity:
	@.ci/setup sanity

helm:
	@.ci/setup helm

cluster:
	@.ci/setup cluster
