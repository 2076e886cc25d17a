# Needs Python 3.11 to 3.14 and make; everything else comes with `make install`, which the other targets call.
# Another interpreter: make install PYTHON=/path/to/python3.13. Fewer tests at a time: make test JOBS=1
# Servers of your own that Onelane has never used: make run ARGS=--use-environment
# A longer run of the chaos harness, or the same again: make chaos MINUTES=60 SEED=7
# Some planted bugs: make chaos-mutants NAMES="fence-off one-lock"

SHELL := /bin/sh
# Compiled once, read by each of the hundreds of processes that the tests start.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
JOBS ?= 4
MINUTES ?= 3
SEED ?=
RUNS ?= 3
SERVER ?=
WALKS ?= 10000
REDIS_TESTS := $(addprefix tests/integration/test_,$(addsuffix .py,lanes_model lanes_faults odd_keys keeper recovery \
	roster rq_tools outages worker_process))
POOLER_TESTS := $(addprefix tests/integration/test_,$(addsuffix .py,spine first_conversation session_lifecycle \
	session_events repeats fences lists acts commands later failures recovery))
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python

# A .venv of another Python than the one that is asked for is made anew.
ifneq ($(and $(PYTHON),$(wildcard $(BIN)/python)),)
ifneq ($(shell "$(PYTHON)" --version 2>&1),$(shell $(BIN)/python --version 2>&1))
.PHONY: $(INSTALLED)
CLEAR := --clear
endif
endif

.DEFAULT_GOAL := help
.PHONY: help install run test test-slow test-nightly test-redis test-pooler bench chaos chaos-mutants explore check docs format clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## create .venv with everything in it

run: $(INSTALLED) ## start embedded servers, web and worker; Ctrl-C stops them
	@exec $(BIN)/onelane run $(ARGS)

test: $(INSTALLED) ## run the tests against real servers of their own, within minutes
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow"

test-slow: $(INSTALLED) ## run the storms, the long models and the long waits, which `make test` leaves out
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "slow and not nightly"

test-nightly: $(INSTALLED) ## run the slow tests that take minutes each, and the long ones at their full size
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m nightly

test-redis: $(INSTALLED) ## run the tests of lanes and workers on another server: SERVER=/path/to/valkey-server
	ONELANE_TEST_REDIS_SERVER=$(SERVER) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(REDIS_TESTS)

test-pooler: $(INSTALLED) ## run the tests of intake, turns and sessions through a PgBouncer with two connections
	ONELANE_TEST_POOLER=2 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not slow" $(POOLER_TESTS)

bench: $(INSTALLED) ## measure beside peers, 75 minutes; CLAIMS="whole_way cost" RUNS=5 QUICK=1
	$(BIN)/python -m bench $(CLAIMS) --runs $(RUNS) $(if $(QUICK),--quick)

chaos: $(INSTALLED) ## break everything at random under traffic, then check every promise
	$(BIN)/python -m tests.chaos run --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

chaos-mutants: $(INSTALLED) ## plant one bug at a time, and see the harness find it
	$(BIN)/python -m tests.chaos mutants $(NAMES)

explore: $(INSTALLED) ## look at every interleaving of two workers, then walk beside real servers
	$(BIN)/python -m tests.explore --walks $(WALKS)

check: $(INSTALLED) ## lint, formatting, types, import contracts, and what the unit tests cover
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n $(JOBS) --cov --cov-report= -m "not slow" tests/unit

docs: $(INSTALLED) ## build the documents as a site, into site/
	$(BIN)/mkdocs build

format: $(INSTALLED) ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove .venv and caches; the data in .onelane stays
	rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build site
	find app bench worker tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Only wheels: nothing is compiled. The stamp is made last: what failed half-way is done again. pip is quiet, but not
# about errors.
$(INSTALLED): pyproject.toml requirements-dev.txt
	@for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then \
			echo "installing into $(VENV), with $$("$$python" --version)"; \
			exec "$$python" -m venv $(CLEAR) $(VENV); \
		fi; \
	done; \
	echo "Onelane needs Python 3.11 to 3.14, and found none: make install PYTHON=/path/to/python" >&2; exit 1
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --only-binary :all: \
		--requirement requirements-dev.txt --editable '.[embedded,dev]'
	@touch $@
