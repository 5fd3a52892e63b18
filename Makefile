# Two commands matter: `make demo` and `make test`. `make help` explains the others.
# Everything Python runs in .venv, which tools/setup makes from requirements.txt; tools/bootstrap brings system packages.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONPATH := $(CURDIR)/.cache/collections
# What Python compiled is kept, out of the tree, also where the user's environment forbids it: compiling Ansible is 1 of the 1.8 s until a command has started.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/python

.PHONY: help
help: ## Explain every target
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z%-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it
.PHONY: demo demo-status demo-ssh demo-down demo-url demo-ca demo-password
demo: bootstrap setup ## Build a lab VM and deploy a real Odoo 19 over HTTPS; again: converge
	@python tools/demo.py up
demo-status: setup ## Show every service of the demo; fails when one is down
	@python tools/demo.py status
demo-ssh: setup ## Log in to the demo's VM
	@python tools/demo.py ssh
demo-url: setup ## Print the demo's address, nothing else
	@python tools/demo.py url
demo-ca: setup ## Print the file of the demo's CA certificate, nothing else
	@python tools/demo.py ca
demo-password: setup ## Print the password of the demo's user admin, nothing else
	@python tools/demo.py password
demo-down: ## Remove the demo's VM, network, keys and data
	@$(LAB) destroy demo >/dev/null

##@ Change it
.PHONY: check lint unit format docs lock
check: setup ## The inner loop, under two minutes: lint, unit tests, documentation drift
	@python tests/run.py lint unit
lint: setup ## ruff, mypy, yamllint, ansible-lint, hadolint, shellcheck, changelog, documentation drift
	@python tests/run.py lint
unit: setup ## Tests of pure logic
	@python tests/run.py unit
format: setup ## Format the Python code and repair what ruff can
	@ruff check --fix . || true; ruff format .
docs: setup ## Write the roles' README.md and docs/variables.md from their argument_specs
	@python tools/docs.py
lock: setup ## Renew requirements.txt from requirements.in
	@tools/lock

##@ Prove it
.PHONY: test test-nightly test-vm sanity build molecule bench-converge bench-postgresql bench-failover bench-isolation bench-edge bench-restore scan
test: bootstrap setup ## lint, unit, sanity, build, lab, every Molecule scenario without its nightly tests; about an hour on 2 cores
	@python tests/run.py
test-nightly: bootstrap setup ## The same with every test, which takes hours
	@python tests/run.py --nightly
test-vm: bootstrap setup ## Lab VMs with kernels of their own, in QEMU: hardening, a database that a watchdog resets, a site; test has the first half
	@python tests/run.py vm
sanity: setup ## ansible-test sanity
	@python tests/run.py sanity
build: setup ## Build the archive for ansible-galaxy, berth-odoo-<version>.tar.gz
	@tools/export .cache/build/source
	@ansible-galaxy collection build .cache/build/source --output-path . --force
molecule: bootstrap setup ## Every Molecule scenario
	@python tests/run.py molecule
molecule-%: bootstrap setup ## One scenario, as in: make molecule-default
	@python tests/run.py molecule:$*
bench-converge: setup ## Time converging the demo: no-op, one setting changed; five runs, medians; BENCH=--help lists more
	@python tests/bench/converge.py $(BENCH)
bench-postgresql: setup ## Compare tuned with default PostgreSQL on the demo's VM: pgbench, Odoo deliveries; about 3 minutes; BENCH=--help lists more
	@python tests/bench/postgresql.py $(BENCH)
bench-failover: setup ## Break the database of the lab ha in eleven ways, three runs each; about an hour; BENCH=--help lists more
	@python tests/bench/failover.py $(BENCH)
bench-isolation: setup ## Measure clerks beside a batch, on the demo and on stock Odoo; about 8 minutes; BENCH=--help lists more
	@python tests/bench/isolation.py $(BENCH)
bench-edge: setup ## Measure the demo's edge: first page in bytes, 400 slow clients, 10,000 silent ones; about 5 minutes; BENCH=--help lists more
	@python tests/bench/edge.py $(BENCH)
bench-restore: setup ## Back up, restore, dump and drill on the lab backup, which has to be there; BENCH=--help lists more
	@python tests/bench/restore.py $(BENCH)
scan: setup ## Lynis, OpenSCAP (CIS level 1) and ssh-audit on a bare lab VM, before and after hardening; sslyze on the demo; BENCH=--help lists more
	@python tests/bench/scan.py $(BENCH)

##@ Tidy up
.PHONY: clean
clean: ## Remove every lab of this checkout, its images and caches, .venv, and the Docker Engine if we started it
	@$(LAB) clean >/dev/null
	@rm -rf .cache .venv berth-odoo-*.tar.gz

# Removing must work without .venv, and with whatever Python there is.
LAB = PYTHONPATH=molecule/shared PYTHONDONTWRITEBYTECODE=1 $$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3) -m berth_lab --project .

.PHONY: setup bootstrap
setup:
	@tools/setup
bootstrap:
	@tools/bootstrap
