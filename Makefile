# Everything here needs Debian (or another Unix) with Python ≥ 3.11 and make, and brings the rest along:
# uv into .cache/uv, locked dependencies into .venv, Node as a wheel. Nothing outside this folder is changed,
# except ~/.cache/rtserver (the local chain's tools) and, for `make test`, Chromium, PostgreSQL, Redis and nginx from
# Debian if they are missing.

SHELL := /bin/sh
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
UV_VERSION := 0.13.9

HOST ?= 127.0.0.1
PORT ?= 8080
CHAIN_PORT ?= 8545
BLOCK_TIME ?= 1
SEED ?= 1
# Each worker starts chains, servers and a browser of its own: more than two only wait for each other on two cores.
WORKERS ?= 2
TESTS ?= tests
PYTEST_ARGS ?=
BENCH_ARGS ?=

UV_HOME := .cache/uv
UV_READY := $(UV_HOME)/ready-$(UV_VERSION)
# In .venv, so that removing .venv is enough to start over.
SYNCED := .venv/synced
BIN := .venv/bin
SOURCES := rtserver tests bench

# Another environment that happens to be active is none of our business, and Python is never downloaded.
UV := env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON_DOWNLOADS=never $(UV_HOME)/bin/uv

.PHONY: help
help: ## Show this list
	@echo "rtserver: the live, exact view of Uniswap v3 positions"
	@echo
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r target text; do printf '%-14s %s\n' "$$target" "$$text"; done
	@echo
	@echo "  make demo PORT=8090 CHAIN_PORT=8600 BLOCK_TIME=2 SEED=7     other ports, pace and market"
	@echo "  make test TESTS=tests/hub WORKERS=0 PYTEST_ARGS='-k resume'  some of the tests"

# exec: Ctrl-C reaches the demo itself, which takes down all that it started.
.PHONY: demo
demo: $(SYNCED) ## Start a local chain with a busy market, and a page to watch it
	@exec $(BIN)/rtserver demo --host $(HOST) --port $(PORT) --chain-port $(CHAIN_PORT) --block-time $(BLOCK_TIME) --seed $(SEED)

.PHONY: test
test: $(SYNCED) ## Install what the tests need, and run them all
	@missing=; \
	  command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || missing=chromium; \
	  $(BIN)/python -c 'import ctypes; ctypes.CDLL("libatomic.so.1")' 2>/dev/null || missing="$$missing libatomic1"; \
	  command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgresql"; \
	  command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	  command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$$missing nginx-light"; \
	  [ -z "$$missing" ] || .ci/apt-install "The tests drive a real browser, PostgreSQL, Redis and nginx; this machine lacks: $$missing." $$missing
	@exec $(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS) $(TESTS)

.PHONY: lint
lint: $(SYNCED) ## Check style, types and the floors of the architecture
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary $(SOURCES)
	@$(BIN)/lint-imports --no-logo >.cache/lint-imports.log 2>&1 || { cat .cache/lint-imports.log; exit 1; }
	@echo "lint: ruff, mypy --strict and import-linter are clean"

.PHONY: bench
bench: $(SYNCED) ## Measure recompute and block-to-socket on this machine
	@$(BIN)/python -m bench.recompute $(BENCH_ARGS)
	@$(BIN)/python -m bench.block_to_socket $(BENCH_ARGS)

.PHONY: clean
clean: ## Remove all that these targets made in this folder
	@rm -rf .venv .cache dist build bench/out .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean (the local chain's tools stay in $${RTSERVER_CACHE_DIR:-~/.cache/rtserver})"

$(UV_READY):
	@command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "rtserver needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true). Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || .ci/apt-install "$(PYTHON) can't make virtual environments: its venv module is a package of its own." python3-venv
	@echo "setting up uv $(UV_VERSION) in $(UV_HOME) …" >&2
	@rm -rf $(UV_HOME)
	@$(PYTHON) -m venv $(UV_HOME)
	@$(UV_HOME)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# One environment for everything: the development tools are a tenth of the wait, and a second sync would undo the first.
$(SYNCED): $(UV_READY) pyproject.toml uv.lock
	@echo "installing locked dependencies into .venv …" >&2
	@if [ -t 2 ]; then quiet=; else quiet=--quiet; fi; $(UV) sync $$quiet --locked --python $(PYTHON)
	@touch $@
